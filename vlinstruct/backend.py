"""The one interface to a model: what a backend implements, and all that the rest of the package knows of it.

A backend sees media, writes texts and scores given texts, each for many rows at once. A row is one item of a call: what
the language model reads, what was seen, and what else belongs to it. Results come one for each row, in their order. A
row's own fault is its `Failed`, and the others go on; what concerns all of them (damaged weights, a lost server) is
raised. A result does not depend on which rows share a call (1e-5 nats in float32).

Every method may be called from several threads: a backend that cannot run two calls at once lets them wait.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from vlinstruct.errors import InputError, UsageError
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Abilities, AttentionMap, Exchange, Failed, Identity, TokenCount, TokenScores, Usage

if TYPE_CHECKING:
    from vlinstruct.values import Media, MediaKind

Stage = Literal["rewrite", "score", "compare", "answer", "judge"]


class Seen(Protocol):
    """What `see` computed of one picture, clip or sound: opaque to everybody but the backend that made it."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One item of a call.

    One object, not parallel lists: whoever groups or reorders rows cannot separate a prompt from its picture.

    Args:
        prompt: what the language model reads; verbatim where `history` and `system` are empty.
        seen: what `see` made of the picture; empty for the language model alone.
        history: earlier questions and answers, oldest first; each backend spells them as its model was trained.
        system: what stands in front of the conversation.
        reads: what a Q-Former reads; other backends ignore it.
        guess: what the output probably repeats: it changes the speed, never the text.
        draw: which sample of equal rows this is; mixed into the seed.
        stage: what the row is for; tells profiles apart and never changes the text.
    """

    prompt: str
    seen: tuple[Seen, ...] = ()
    history: tuple[Exchange, ...] = ()
    system: str = ""
    reads: str = ""
    guess: str = ""
    draw: int = 0
    stage: Stage = "answer"


@dataclass(frozen=True, kw_only=True)
class Written:
    """What the model wrote for one row.

    Args:
        text: without white space around it and without special tokens.
        token_nll: nats of every generated token under the model's own distribution (temperature 1, no penalty), the
            end token included where `is_complete`; None where the backend cannot tell, as with beams.
        is_complete: False where `max_new_tokens` cut the text.
        usage: tokens read and written.
    """

    text: str
    token_nll: tuple[float, ...] | None = None
    is_complete: bool = True
    usage: Usage = field(default_factory=Usage)


class Backend(Protocol):
    """A vision-language model. Inherit to get all but `see`, `write` and `score`, which are required."""

    identity: Identity = Identity(name="unnamed")
    abilities: Abilities = Abilities()

    def see(self, media: Sequence[Media]) -> list[Seen | Failed]:
        """Computes what all later calls need of each picture, clip or sound, once."""
        ...

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        """Continues every row's prompt."""
        ...

    def score(
        self,
        rows: Sequence[Row],
        targets: Sequence[Sequence[str]],
        *,
        with_end: bool = True,
        num_first: int | None = None,
    ) -> list[list[TokenScores] | Failed]:
        """Scores given texts as the continuation of their row's prompt.

        Args:
            rows: what is read before a target, B.
            targets: per row its K targets; K may differ.
            with_end: the end token belongs to every target; False for texts that were cut.
            num_first: score only so many tokens of each target; None scores all.

        Returns:
            Per row the scores of its targets, in nats per token.
        """
        ...

    def stream(self, row: Row, settings: GenerationSettings) -> Iterator[str | Written]:
        """Continues one row piece by piece.

        Yields:
            Pieces, then the `Written` whose text they join to.

        Raises:
            VlinstructError: the row failed.
        """
        (written,) = self.write([row], settings)
        if isinstance(written, Failed):
            raise written.error
        if written.text:
            yield written.text
        yield written

    def num_tokens(self, rows: Sequence[Row]) -> list[TokenCount | None]:
        """Counts every row's tokens; None where the backend does not know."""
        return [None] * len(rows)

    def knows(self, seen: Seen) -> bool:
        """Returns False where a picture is unlike all that the model was trained on, as far as the backend can tell."""
        return True

    def attention(self, rows: Sequence[Row]) -> list[tuple[AttentionMap, ...]]:
        """Returns where the model looks in every row's picture as it reads `reads`: a map for each frame of a clip.

        Nothing where it cannot tell, which most cannot.
        """
        return [()] * len(rows)

    def prepare(self, medium: Media) -> Media:
        """Returns what `see` needs of a picture, clip or sound, and sees the same of both; from any thread.

        A batch waits for its other pictures in this form: 16 photographs of 50 megapixels take 2.4 GB, and 2.4 MB at
        the size that a model reads.
        """
        return medium


@dataclass(kw_only=True)
class StageCost:
    """What one stage took so far: calls of the backend, their rows, and wall-clock seconds."""

    num_calls: int = 0
    num_rows: int = 0
    seconds: float = 0.0


class ProfiledBackend(Backend):
    """Another backend that also keeps account of its calls.

    Which stage a call belongs to stands in its rows: guessing it from the order of calls would be wrong after one more.

    Args:
        backend: does the work.

    Attributes:
        costs: by stage of the rows, and `see`; stages that were not asked for cost nothing.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.identity = backend.identity
        self.abilities = backend.abilities
        self.costs: defaultdict[str, StageCost] = defaultdict(StageCost)
        self._adding = threading.Lock()  # methods may be called from several threads, and `+=` is no single step

    def see(self, media: Sequence[Media]) -> list[Seen | Failed]:
        with self._timed("see", len(media)):
            return self.backend.see(media)

    def prepare(self, medium: Media) -> Media:
        return self.backend.prepare(medium)

    def knows(self, seen: Seen) -> bool:
        return self.backend.knows(seen)

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        with self._timed(*_stage_of(rows)):
            return self.backend.write(rows, settings)

    def score(
        self,
        rows: Sequence[Row],
        targets: Sequence[Sequence[str]],
        *,
        with_end: bool = True,
        num_first: int | None = None,
    ) -> list[list[TokenScores] | Failed]:
        with self._timed(*_stage_of(rows)):
            return self.backend.score(rows, targets, with_end=with_end, num_first=num_first)

    def stream(self, row: Row, settings: GenerationSettings) -> Iterator[str | Written]:
        # What the caller does with a piece before asking for the next one is not the backend's time.
        pieces, seconds = self.backend.stream(row, settings), 0.0
        try:
            while True:
                began = time.perf_counter()
                piece = next(pieces, None)
                seconds += time.perf_counter() - began
                if piece is None:
                    return
                yield piece
        finally:
            self._add(row.stage, 1, seconds)

    def num_tokens(self, rows: Sequence[Row]) -> list[TokenCount | None]:
        return self.backend.num_tokens(rows)

    def attention(self, rows: Sequence[Row]) -> list[tuple[AttentionMap, ...]]:
        return self.backend.attention(rows)

    @contextmanager
    def _timed(self, stage: str, num_rows: int) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._add(stage, num_rows, time.perf_counter() - began)

    def _add(self, stage: str, num_rows: int, seconds: float) -> None:
        with self._adding:
            cost = self.costs[stage]
            cost.num_calls += 1
            cost.num_rows += num_rows
            cost.seconds += seconds


def _stage_of(rows: Sequence[Row]) -> tuple[str, int]:
    return (rows[0].stage if rows else "answer"), len(rows)


def check_rows(rows: Sequence[object], seen: Sequence[object]) -> None:
    """Refuses a call in which texts and pictures are not of the same number.

    Raises:
        UsageError: their numbers differ.
    """
    if len(rows) != len(seen):
        raise UsageError(f"one row of instructions per image is expected, got {len(rows)} for {len(seen)} images")


def not_taken(kind: MediaKind, abilities: Abilities, place: str = "") -> InputError:
    """Returns the error of what a backend does not see.

    Args:
        kind: what was given.
        abilities: the backend's.
        place: what to call it; its kind if empty.

    >>> not_taken("sound", Abilities(), "a.wav").message
    'cannot use a sound (a.wav): this model takes pictures only. Give one of these, or another --backbone'
    """
    kinds = [f"{name}s" for name in ("picture", "clip", "sound") if name in abilities.media]
    why = f"this model takes {' and '.join(kinds)}{' only' if len(kinds) < 2 else ''}"
    advice = "Give one of these, or another --backbone"
    return InputError.at(f"cannot use a {kind}", place or kind, why, advice, code="media_not_taken")
