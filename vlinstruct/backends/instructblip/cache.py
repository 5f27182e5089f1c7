"""Keys and values that attention has already computed, in memory that is reserved ahead.

Rows may be of different length: what a row has dropped again is overwritten by what it reads next.

Legend: B rows, H heads, S new positions, K positions, W width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ROOM = 64


class KeyValues:
    """The keys and values of one attention, (B, H, K, W) each; grows by `append`."""

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None) -> None:
        self.keys = keys
        self.values = values

    def append(self, keys: Tensor, values: Tensor, starts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Adds positions and returns all keys and values up to the longest row's last one.

        Args:
            keys: (B, H, S, W).
            values: (B, H, S, W).
            starts: per row, how many positions are there already.
        """
        if self.keys is None or self.values is None:
            self.keys, self.values = keys, values
            return keys, values
        length = max(starts) + keys.shape[2]
        self.keys, self.values = _reserved(self.keys, length), _reserved(self.values, length)
        _write(self.keys, keys, starts)
        _write(self.values, values, starts)
        return self.keys[:, :, :length], self.values[:, :, :length]

    def select(self, rows: Tensor) -> None:
        """Keeps the rows at `rows` (N,), in that order."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)


class PassingKeyValues(KeyValues):
    """Keeps nothing, for a sequence that is read in one pass: a checkpointed block may append twice.

    What a block kept would hold its graph, which holds the block's arguments: a circle that is never freed.
    """

    def append(self, keys: Tensor, values: Tensor, starts: Sequence[int]) -> tuple[Tensor, Tensor]:
        return keys, values


def _reserved(memory: Tensor, length: int) -> Tensor:
    """Returns memory for `length` positions at least, what is there kept; the rest is finite, for masks to hide."""
    if memory.shape[2] >= length:
        return memory
    larger = memory.new_zeros(*memory.shape[:2], length + _ROOM, memory.shape[3])
    larger[:, :, : memory.shape[2]] = memory
    return larger


def _write(memory: Tensor, new: Tensor, starts: Sequence[int]) -> None:
    first = starts[0]
    if all(start == first for start in starts):
        memory[:, :, first : first + new.shape[2]] = new
        return
    places = torch.tensor(starts, device=new.device)[:, None] + torch.arange(new.shape[2], device=new.device)
    memory.scatter_(2, places[:, None, :, None].expand(-1, new.shape[1], -1, new.shape[3]), new)
