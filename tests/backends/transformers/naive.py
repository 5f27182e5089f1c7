"""The oracle as a backend: every row alone, every call from the start. What ours must equal, call by call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vlinstruct.backend import Backend, Row, Seen, Written
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Failed, TokenScores, Usage

from .reference import Reference

if TYPE_CHECKING:
    from vlinstruct.values import Media

TOLERANCE = 1e-5
"""In nats, float32."""


class NaiveBackend(Backend):
    """Sees nothing beforehand, keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self.reference = Reference(folder)

    def see(self, media: Sequence[Media]) -> list[Seen | Failed]:
        return list(media)

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        assert not settings.do_sample
        options: dict[str, Any] = {"repetition_penalty": settings.repetition_penalty}
        if settings.num_beams > 1:
            options |= {"num_beams": settings.num_beams, "length_penalty": settings.length_penalty}
        return [self._written(row, settings.max_new_tokens, options) for row in rows]

    def _written(self, row: Row, max_new_tokens: int, options: dict[str, Any]) -> Written:
        ids, token_nll = self.reference.generate(self.context(row), max_new_tokens, **options)
        return Written(
            text=self.reference.text(ids),
            token_nll=tuple(token_nll) or None,
            is_complete=ids[-1] in self.reference.stop_ids,
            usage=Usage(written=len(ids)),
        )

    def score(
        self,
        rows: Sequence[Row],
        targets: Sequence[Sequence[str]],
        *,
        with_end: bool = True,
        num_first: int | None = None,
    ) -> list[list[TokenScores] | Failed]:
        outcomes: list[list[TokenScores] | Failed] = []
        for row, texts in zip(rows, targets, strict=True):
            context = self.context(row)
            of_row = []
            for text in texts:
                ids = self.reference.target_ids(text, with_end=with_end)
                nll = self.reference.token_nll(context, ids)[:num_first]
                of_row.append(TokenScores(tokens=("",) * len(nll), token_nll=tuple(nll)))
            outcomes.append(of_row)
        return outcomes

    def context(self, row: Row) -> dict[str, Any]:
        """Returns what the model reads for a row."""
        return self.reference.context(
            row.prompt,
            row.seen[0] if row.seen else None,
            history=[(turn.question, turn.answer) for turn in row.history],
            system=row.system,
        )


def assert_same_scores(
    ours: Iterable[list[TokenScores] | Failed], theirs: Iterable[list[TokenScores] | Failed]
) -> None:
    """Checks likelihoods token by token, of every target of every row."""
    for of_ours, of_theirs in zip(ours, theirs, strict=True):
        assert not isinstance(of_ours, Failed), of_ours.error.message
        assert not isinstance(of_theirs, Failed)
        for our_target, their_target in zip(of_ours, of_theirs, strict=True):
            assert our_target.token_nll == pytest.approx(their_target.token_nll, abs=TOLERANCE)


def assert_same_texts(ours: Iterable[Written | Failed], theirs: Iterable[Written | Failed]) -> None:
    """Checks that the same tokens were written, one by one, with the same likelihoods."""
    for our_row, their_row in zip(ours, theirs, strict=True):
        assert not isinstance(our_row, Failed), our_row.error.message
        assert not isinstance(their_row, Failed)
        assert our_row.text == their_row.text
        assert our_row.is_complete == their_row.is_complete
        assert our_row.usage.written == their_row.usage.written
        if their_row.token_nll is not None:
            assert our_row.token_nll == pytest.approx(their_row.token_nll, abs=TOLERANCE)
