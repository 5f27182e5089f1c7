"""One question about a picture that is drawn here, with its score: what a sound model answers twice alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image, ImageDraw

from vlinstruct.backend import Backend
from vlinstruct.doctor.finding import Finding, ok, problem
from vlinstruct.errors import ScoreError
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings

_QUESTION = "what colour is the circle?"
_MAX_NEW_TOKENS = 8
_NARROW = "Use --dtype float32 or bfloat16; if it stays, download the weights again"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An answer to the question, and the question's score.

    Args:
        answer: the answer.
        ias: the question's, in nats per token.
        token_nll: of each of the question's tokens, in nats.
    """

    answer: str
    ias: float
    token_nll: tuple[float, ...]

    @property
    def is_finite(self) -> bool:
        """Whether no score is NaN or infinite."""
        return math.isfinite(self.ias) and all(map(math.isfinite, self.token_nll))


def attempt(backend: Backend) -> Attempt:
    """Asks once, from the pixels on.

    Nothing is taken over from an earlier attempt: it would repeat the encoder's output, and hide that it is not stable.
    """
    model = Model(backend)
    image = Image.new("RGB", (224, 224), "white")
    ImageDraw.Draw(image).ellipse((48, 48, 176, 176), fill="red")
    seen = model.see(image)
    try:
        (scored,) = model.score(seen, _QUESTION)
    except ScoreError:  # no score is finite
        return Attempt(answer="", ias=math.nan, token_nll=())
    reply = model.ask(seen, _QUESTION, generation=GenerationSettings(max_new_tokens=_MAX_NEW_TOKENS))
    return Attempt(answer=reply.text, ias=scored.ias, token_nll=scored.scores.token_nll)


def compared(check: str, first: Attempt, second: Attempt) -> Finding:
    """Says whether two attempts are the same."""
    if not (first.is_finite and second.is_finite):
        return problem(check, "its scores are not finite", _NARROW)
    # The very same numbers are expected, not close ones: it is one device, one batch, and nothing is sampled.
    if first != second:
        answers = [f"{attempt.answer!r} (IAS {attempt.ias:.5f})" for attempt in (first, second)]
        message = f"the same question twice gave {' and '.join(answers)}"
        return problem(check, message, "Compare with --device cpu; if it stays, report it")
    return ok(check, f"asked about a red circle, {_QUESTION!r}: {first.answer!r}, IAS {first.ias:.4f}, twice the same")
