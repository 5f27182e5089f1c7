"""A fake at the Protocol: deterministic, without tensors, and it remembers what it was asked."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from vlinstruct.instruction import Templates
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Percept, ScoredInstruction, TokenScores

BEFORE, AFTER = "There is the text ", ". Please modify the text"
"""Around the instruction in the default rewriting prompt."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of the model, with the rows as they came."""

    method: str
    images: tuple[int, ...] = ()
    prompts: tuple[str, ...]
    qformer_texts: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


def pseudo_nll(image: int, prompt: str, qformer_text: str, target: str) -> list[float]:
    """Scores every word of the target and its end from all that the row contains: no row can depend on another."""
    row = f"{image}|{prompt}|{qformer_text}|{target}"
    return [zlib.crc32(f"{row}|{position}".encode()) / 2**32 * 5 for position in range(len(target.split()) + 1)]


@dataclass(kw_only=True)
class FakeModel:
    """An InstructionModel whose rows are functions of their own content.

    Args:
        write: what the language model alone makes of a prompt.
        look: what the model makes of an image's number, a prompt and the Q-Former's text.
        ias: the IAS of these instructions; others have a pseudo-random one.
    """

    write: Callable[[str], str] = lambda prompt: f"Tell me: {prompt.removeprefix(BEFORE).partition(AFTER)[0]}"
    look: Callable[[int, str, str], str] = lambda image, prompt, text: f"{text} Look at {zlib.crc32(prompt.encode())}"
    ias: dict[str, float] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def encode(self, media: Sequence[int]) -> Percept:
        return Percept(image_embeds=np.array(media, dtype=float).reshape(-1, 1, 1))

    def generate_text(self, prompts: Sequence[str], config: GenerationSettings) -> list[str]:
        self.calls.append(Call(method="generate_text", prompts=tuple(prompts)))
        return [self.write(prompt) for prompt in prompts]

    def generate(
        self, percept: Percept, prompts: Sequence[str], qformer_texts: Sequence[str], config: GenerationSettings
    ) -> list[str]:
        rows = {"prompts": tuple(prompts), "qformer_texts": tuple(qformer_texts)}
        self.calls.append(Call(method="generate", images=images(percept), **rows))
        return [self.look(*row) for row in zip(images(percept), prompts, qformer_texts, strict=True)]

    def token_nll(
        self, percept: Percept, prompts: Sequence[str], qformer_texts: Sequence[str], targets: Sequence[str]
    ) -> list[TokenScores]:
        rows = {"prompts": tuple(prompts), "qformer_texts": tuple(qformer_texts), "targets": tuple(targets)}
        self.calls.append(Call(method="token_nll", images=images(percept), **rows))
        return [self._scores(*row) for row in zip(images(percept), prompts, qformer_texts, targets, strict=True)]

    def _scores(self, image: int, prompt: str, qformer_text: str, target: str) -> TokenScores:
        tokens = (*target.split(), "</s>")
        nll = (
            [self.ias[target]] * len(tokens) if target in self.ias else pseudo_nll(image, prompt, qformer_text, target)
        )
        return TokenScores(tokens=tokens, token_nll=tuple(nll))

    def called(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]


def images(percept: Percept) -> tuple[int, ...]:
    return tuple(int(number) for number in percept.image_embeds.reshape(-1))


@pytest.fixture
def fake() -> type[FakeModel]:
    return FakeModel


@pytest.fixture
def templates() -> Templates:
    return Templates.default()


@pytest.fixture
def scored() -> Callable[[str, float], ScoredInstruction]:
    def make(text: str, ias: float) -> ScoredInstruction:
        return ScoredInstruction(text=text, ias=ias, scores=TokenScores(tokens=("a",), token_nll=(ias,)))

    return make


HOSTILE = [
    "{instruction}",
    "{ias}",
    "{candidates}",
    "{objects}",
    "{0}",
    "{}",
    "{",
    "}",
    "{{x}}",
    "{{instruction}}",
    "%s",
    "%(instruction)s",
    "$x ${instruction}",
    "{{ jinja }} {% raw %}",
    "{instruction.__class__.__mro__}",
    "{x!r:>9999999999}",
    "{ias:.2f}",
    r"\1 \g<0> \n \\",
    "</s> <s> <pad> <image> [SEP] [CLS]",
    "<image>" * 5,
    "a\r\nb\tc\rd",
    "\x00 \x1b[2J \u202e",
    "👩‍👩‍👧 e\u0301 日本語",
    "'\"`; DROP TABLE",
]


@pytest.fixture(params=HOSTILE, ids=range(len(HOSTILE)))
def hostile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[math.nan, math.inf, -math.inf], ids=["nan", "inf", "-inf"])
def not_finite(request: pytest.FixtureRequest) -> float:
    return float(request.param)
