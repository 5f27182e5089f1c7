"""Drafts what a model will write, from a text that it probably repeats: nothing is computed, only looked up.

Rewriting and comparing mostly copy an instruction, and a draft that is right costs one pass for many tokens (prompt
lookup decoding; Saxena, 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

_LONGEST_MATCH = 4
_MOST_DRAFTED = 32


class CopyingDraft:
    """Drafts one row.

    Args:
        source: ids of the text that is probably repeated, end token included; empty drafts nothing.

    >>> draft = CopyingDraft([5, 6, 7, 8, 1])
    >>> draft.after([]), draft.after([9, 6]), draft.after([6, 9]), draft.after([9])
    ([5, 6, 7, 8, 1], [7, 8, 1], [8, 1], [])
    """

    def __init__(self, source: Sequence[int]) -> None:
        self.source = list(source)

    def after(self, written: Sequence[int]) -> list[int]:
        """Returns what stands in the source behind the longest end of `written` that the source has, its last place.

        Where the source has not even the last token, that token has perhaps replaced one of the source's.
        """
        if not written:
            return self.source[:_MOST_DRAFTED]
        for num_replaced in (0, 1):
            end = self._end_of_match(written[: len(written) - num_replaced])
            if end is not None:
                return self.source[end + num_replaced :][:_MOST_DRAFTED]
        return []

    def _end_of_match(self, written: Sequence[int]) -> int | None:
        for length in range(min(_LONGEST_MATCH, len(written)), 0, -1):
            tail = list(written[-length:])
            for start in range(len(self.source) - length, -1, -1):
                if self.source[start : start + length] == tail:
                    return start + length
        return None
