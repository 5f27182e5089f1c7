"""The oracle as a backend: every row alone, every call from the start. What ours must equal, call by call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vlinstruct.backend import Backend, Row, Seen, Written
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Failed, TokenScores, Usage

from .reference import Reference
from .tiny_families import Family

if TYPE_CHECKING:
    from vlinstruct.values import Media


class NaiveBackend(Backend):
    """Sees nothing beforehand, keeps nothing.

    Args:
        folder: of the family.
        family: what is known of it.
    """

    def __init__(self, folder: Path, family: Family) -> None:
        self.reference = Reference(folder, torch.float64 if family.takes_float64 else torch.float32)
        self.tolerance = family.tolerance

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
        answer, is_closed = self.reference.outside_thoughts(ids)
        return Written(
            text=self.reference.text([ids[place] for place in answer]),
            token_nll=tuple(token_nll[place] for place in answer) if token_nll else None,
            is_complete=is_closed and ids[-1] in self.reference.stop_ids,
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
