"""Keys and values that attention has already computed.

Legend: B rows, H heads, K positions, W width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor


class KeyValues:
    """The keys and values of one attention, (B, H, K, W) each; grows by `append`."""

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None) -> None:
        self.keys = keys
        self.values = values

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds positions and returns all keys and values so far."""
        if self.keys is None or self.values is None:
            self.keys, self.values = keys, values
        else:
            self.keys = torch.cat([self.keys, keys], dim=2)
            self.values = torch.cat([self.values, values], dim=2)
        return self.keys, self.values

    def select(self, rows: Tensor) -> None:
        """Keeps the rows at `rows` (N,), in that order."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)
