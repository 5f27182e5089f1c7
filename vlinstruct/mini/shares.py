"""Figures with their uncertainty: shares with Wilson intervals, AUC, and the table they are printed in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_Z = 1.959964


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of items.

    Args:
        name: what is counted.
        hits: items that count.
        items: all of them.
    """

    name: str
    hits: int
    items: int

    @property
    def rate(self) -> float:
        """The share, 0 to 1; NaN without items."""
        return self.hits / self.items if self.items else math.nan

    def interval(self) -> tuple[float, float]:
        """Returns the 95 % Wilson interval.

        >>> low, high = Share(name="", hits=50, items=100).interval()
        >>> round(low, 3), round(high, 3)
        (0.404, 0.596)
        """
        if not self.items:
            return math.nan, math.nan
        shrink = 1 + _Z**2 / self.items
        centre = (self.rate + _Z**2 / (2 * self.items)) / shrink
        half = _Z / shrink * math.sqrt(self.rate * (1 - self.rate) / self.items + (_Z / (2 * self.items)) ** 2)
        return max(0.0, centre - half), min(1.0, centre + half)


def share(name: str, outcomes: Iterable[bool]) -> Share:
    """Counts outcomes."""
    listed = list(outcomes)
    return Share(name=name, hits=sum(listed), items=len(listed))


def auc(lower: Sequence[float], higher: Sequence[float]) -> float:
    """Returns how often a value of `lower` is below one of `higher`; a tie counts one half.

    >>> auc([1.0, 2.0], [2.0, 3.0])
    0.875
    """
    wins = sum((low < high) + 0.5 * (low == high) for low in lower for high in higher)
    return wins / (len(lower) * len(higher))


def table(shares: Iterable[Share]) -> str:
    """Returns a Markdown table of the shares in percent."""
    lines = ["| what | right | 95 % interval | items |", "|---|---|---|---|"]
    for one in shares:
        low, high = one.interval()
        lines.append(f"| {one.name} | {100 * one.rate:.1f} % | {100 * low:.1f} to {100 * high:.1f} % | {one.items} |")
    return "\n".join(lines)
