"""The backbone answers a question about a picture that is drawn here, and does it twice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from vlinstruct.doctor.finding import Finding, notice, ok, problem
from vlinstruct.doctor.model import ModelFolder
from vlinstruct.errors import NetworkError, ResourceError, ScoreError, is_out_of_memory
from vlinstruct.settings import GenerationSettings

if TYPE_CHECKING:
    from vlinstruct.model import Model

QUESTION = "what colour is the circle?"
_MOST_TOKENS = 8
_SMALLER = "Use --dtype bfloat16, --quantize 8bit, or another --device"
_NARROW = "Use --dtype float32 or bfloat16; if it stays, download the weights again"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What the model made of the question.

    Args:
        answer: its words.
        ias: of the question, in nats per token.
        token_nll: of each of its tokens.
    """

    answer: str
    ias: float
    token_nll: tuple[float, ...]

    @property
    def is_finite(self) -> bool:
        """Whether all its numbers are."""
        return math.isfinite(self.ias) and all(map(math.isfinite, self.token_nll))


def answer(model: ModelFolder) -> Iterator[Finding]:
    """Loads the backbone, where it fits into memory, and asks it; with its adapter once more."""
    try:
        pipeline = _load(model)
        yield _judged("answer", attempt(pipeline), attempt(pipeline))
        if model.wanted.adapter is not None:
            yield _with_adapter(pipeline, model.wanted.adapter)
    except ResourceError as error:
        yield notice("answer", f"not tried: {error.problem}", error.advice or _SMALLER)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        yield notice("answer", "not tried: memory ended while it was loaded", _SMALLER)


def _load(model: ModelFolder) -> Model:
    from vlinstruct.model import load

    wanted = model.wanted
    return load(str(model.folder.absolute()), device=wanted.device, dtype=wanted.dtype, offline=True)


def _with_adapter(pipeline: Model, adapter: str) -> Finding:
    from vlinstruct.backends.instructblip.adapter import load_adapter
    from vlinstruct.backends.registry import find_adapter

    check = f"answer with {adapter}"
    try:
        folder = find_adapter(adapter, offline=True)
    except NetworkError:
        return notice(check, "not tried: it is not in the cache", f"Get it with: hf download {adapter}")
    load_adapter(folder, pipeline.backend.network)
    return _judged(check, attempt(pipeline), attempt(pipeline))


def attempt(pipeline: Model) -> Attempt:
    """Asks once, from the pixels on."""
    percept = pipeline.see(picture())
    try:
        (scored,) = pipeline.score(percept, QUESTION)
    except ScoreError:  # nothing finite at all
        return Attempt(answer="", ias=math.nan, token_nll=())
    answer = pipeline.ask(percept, QUESTION, generation=GenerationSettings(max_new_tokens=_MOST_TOKENS))
    return Attempt(answer=answer.text, ias=scored.ias, token_nll=scored.scores.token_nll)


def picture() -> Image.Image:
    """Draws a red circle on white."""
    image = Image.new("RGB", (224, 224), "white")
    ImageDraw.Draw(image).ellipse((48, 48, 176, 176), fill="red")
    return image


def _judged(check: str, first: Attempt, second: Attempt) -> Finding:
    if not (first.is_finite and second.is_finite):
        return problem(check, "its scores are not finite", _NARROW)
    if first != second:
        told = [f"{one.answer!r} (IAS {one.ias:.5f})" for one in (first, second)]
        found = f"the same question twice gave {' and '.join(told)}"
        return problem(check, found, "Compare with --device cpu; if it stays, report it")
    return ok(check, f"asked about a red circle, {QUESTION!r}: {first.answer!r}, IAS {first.ias:.4f}, twice the same")
