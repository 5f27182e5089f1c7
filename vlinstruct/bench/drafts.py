"""Drafts that are right in a given share: of the tokens that a draft gives, not of its words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vlinstruct.backends.instructblip.speculative import DraftedRow

_WRONG_WORD = "red"


def num_passes(draft: Sequence[int], written: Sequence[int]) -> int:
    """Returns how many passes a model takes to write a text from a draft.

    >>> num_passes([5, 6, 7, 1], [5, 6, 7, 1]), num_passes([5, 9, 7, 1], [5, 6, 7, 1]), num_passes([], [5, 6, 7, 1])
    (1, 2, 4)
    """
    row, passes = DraftedRow(draft, len(written), (written[-1],)), 0
    while not row.is_finished:
        done = len(row.written)
        row.accept(written[done : done + 1 + len(row.proposed)])
        passes += 1
    return passes


def acceptance(draft: Sequence[int], written: Sequence[int]) -> float:
    """Returns the share of a text's tokens that a draft gives, 0 to 1; the first pass's own token does not count."""
    return 1 - (num_passes(draft, written) - 1) / (len(written) - 1)


def draft_of(text: str, wanted: float, ids: Callable[[str], list[int]]) -> str:
    """Returns a draft of a text with evenly spread wrong words, whose acceptance is nearest to what is wanted.

    Args:
        text: what will be written.
        wanted: acceptance, 0 to 1.
        ids: the tokenizer, end token included.
    """
    words = text.split(" ")
    drafts = [_with_wrong_words(words, count) for count in range(len(words) + 1)]
    return min(drafts, key=lambda draft: abs(acceptance(ids(draft), ids(text)) - wanted))


def _with_wrong_words(words: Sequence[str], count: int) -> str:
    wrong = {int((i + 0.5) * len(words) / count) for i in range(count)}
    return " ".join(_WRONG_WORD if place in wrong else word for place, word in enumerate(words))
