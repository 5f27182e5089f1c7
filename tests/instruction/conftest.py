"""A fake at the interface: deterministic, without tensors, and it remembers what it was asked."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from vlinstruct.backend import Backend, Row, Seen, Stage, Written
from vlinstruct.errors import NON_FINITE_LOGITS, CheckpointError, TextError
from vlinstruct.instruction import Templates
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Abilities, Failed, ScoredInstruction, TokenScores

BEFORE, AFTER = "There is the text ", ". Please modify the text"
"""Around the instruction in the default rewriting prompt."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of the backend, with the rows as they came; all of them have the call's stage."""

    method: str
    rows: tuple[Row, ...]
    targets: tuple[tuple[str, ...], ...] = ()
    with_end: bool = True
    num_first: int | None = None
    generation: GenerationSettings | None = None

    @property
    def stage(self) -> Stage:
        (stage,) = {row.stage for row in self.rows}
        return stage

    @property
    def images(self) -> tuple[Seen, ...]:
        return tuple(picture for row in self.rows for picture in row.seen)

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(row.prompt for row in self.rows)

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(row.reads for row in self.rows)

    @property
    def guesses(self) -> tuple[str, ...]:
        return tuple(row.guess for row in self.rows)

    @property
    def texts(self) -> tuple[str, ...]:
        """The rows' targets, one each."""
        return tuple(text for (text,) in self.targets)


def pseudo_nll(row: Row, target: str) -> tuple[float, ...]:
    """Scores every word of the target and its end from all that the row contains: no row can depend on another."""
    content = f"{row.seen}|{row.prompt}|{row.reads}|{target}"
    return tuple(zlib.crc32(f"{content}|{place}".encode()) / 2**32 * 5 for place in range(len(target.split()) + 1))


@dataclass(kw_only=True)
class FakeBackend(Backend):
    """A backend whose rows are functions of their own content; an image is its number.

    Args:
        rewritten: what the language model alone makes of a prompt.
        look: what the model makes of an image's number, a prompt and the Q-Former's text.
        answers: to these instructions; `look` answers others.
        cross: the nats of these answers' tokens after any instruction; others have pseudo-random ones.
        ias: the IAS of these instructions; others have a pseudo-random one.
        nll: what `Written.token_nll` is for a prompt.
        too_long: a row whose prompt or Q-Former's text contains it fails.
        overflows: the stage whose rows have numbers that are not finite.
    """

    abilities: Abilities = field(default_factory=Abilities)
    rewritten: Callable[[str], str] = lambda prompt: f"Tell me: {initial_of(prompt)}"
    look: Callable[[Any, str, str], str] = lambda image, prompt, text: f"{text} Look at {zlib.crc32(prompt.encode())}"
    answers: dict[str, str] = field(default_factory=dict)
    cross: dict[str, float] = field(default_factory=dict)
    ias: dict[str, float] = field(default_factory=dict)
    nll: Callable[[str], tuple[float, ...] | None] = lambda prompt: (0.0, 0.0)
    too_long: str | None = None
    overflows: Stage | None = None
    calls: list[Call] = field(default_factory=list)

    def see(self, media: Sequence[Any]) -> list[Seen | Failed]:
        return list(media)

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        self.calls.append(Call(method="write", rows=tuple(rows), generation=settings))
        return [self._failed(row) or self._written(row) for row in rows]

    def score(
        self,
        rows: Sequence[Row],
        targets: Sequence[Sequence[str]],
        *,
        with_end: bool = True,
        num_first: int | None = None,
    ) -> list[list[TokenScores] | Failed]:
        texts = tuple(map(tuple, targets))
        self.calls.append(Call(method="score", rows=tuple(rows), targets=texts, with_end=with_end, num_first=num_first))
        return [
            self._failed(row) or [_first(self.scores(row, text), with_end, num_first) for text in texts]
            for row, texts in zip(rows, targets, strict=True)
        ]

    def _written(self, row: Row) -> Written:
        text = self.look(row.seen[0], row.prompt, row.reads) if row.seen else self.rewritten(row.prompt)
        if row.stage in ("answer", "judge"):
            text = self.answers.get(row.prompt, text)
        return Written(text=text.strip(), token_nll=self.nll(row.prompt))

    def _failed(self, row: Row) -> Failed | None:
        if row.stage == self.overflows:
            return Failed(error=CheckpointError("not finite", code=NON_FINITE_LOGITS))
        is_too_long = self.too_long is not None and self.too_long in f"{row.prompt} {row.reads}"
        return Failed(error=TextError("prompt too long", code="text_too_long")) if is_too_long else None

    def scores(self, row: Row, target: str) -> TokenScores:
        tokens = (*target.split(), "</s>")
        known = self.cross if row.stage in ("answer", "judge") else self.ias
        nll = (known[target],) * len(tokens) if target in known else pseudo_nll(row, target)
        return TokenScores(tokens=tokens, token_nll=nll)

    def called(self, stage: Stage) -> list[Call]:
        return [call for call in self.calls if call.stage == stage]


def _first(scores: TokenScores, with_end: bool, num_first: int | None) -> TokenScores:
    last = len(scores.tokens) if with_end else len(scores.tokens) - 1
    return TokenScores(tokens=scores.tokens[:last][:num_first], token_nll=scores.token_nll[:last][:num_first])


def initial_of(prompt: str) -> str:
    """The instruction in the default rewriting prompt."""
    return prompt.removeprefix(BEFORE).partition(AFTER)[0]


@pytest.fixture
def fake() -> type[FakeBackend]:
    return FakeBackend


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
