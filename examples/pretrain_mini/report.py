"""How figures are shown: shares with Wilson intervals, the table they are printed in, and two charts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vlinstruct.mini.scene import COLOURS
from vlinstruct.training.curve import smoothed

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
    hits = list(outcomes)
    return Share(name=name, hits=sum(hits), items=len(hits))


def table(shares: Iterable[Share]) -> str:
    """Returns a Markdown table of the shares in percent."""
    lines = ["| what | right | 95 % interval | items |", "|---|---|---|---|"]
    for row in shares:
        low, high = row.interval()
        lines.append(f"| {row.name} | {100 * row.rate:.1f} % | {100 * low:.1f} to {100 * high:.1f} % | {row.items} |")
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class ReadingPoint:
    """A point of the curve.

    Args:
        height: of the capitals, as a fraction of the picture's.
        read: the texts of that height that were read exactly.
    """

    height: float
    read: Share


# Which of the losses the learning curve shows, and the colour of each.
_LOSS_COLOURS = {
    "target": "blue",
    "rewrite": "green",
    "copying": "purple",
    "patch_character": "orange",
    "patch_index": "brown",
    "query_characters": "red",
    "query_verdict": "grey",
}


def _colour(name: str) -> tuple[float, ...]:
    """Returns a colour of mini's world as matplotlib takes it, 0 to 1."""
    return tuple(level / 255 for level in COLOURS[name])


def _chart(title: str, size_inches: tuple[float, float]) -> tuple[Figure, Any]:
    figure = Figure(figsize=size_inches, dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize="medium")
    axes.grid(alpha=0.3)
    return figure, axes


def save_curve(log: Path, picture: Path) -> None:
    """Draws the losses of a training log, smoothed, against the pictures seen.

    Args:
        log: JSON lines with "pictures" and losses by name.
        picture: PNG file to write.
    """
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    figure, axes = _chart("training losses, nats (logarithmic)", (8, 4.5))
    for name, colour in _LOSS_COLOURS.items():
        with_loss = [line for line in lines if name in line]
        losses = smoothed([line[name] for line in with_loss])
        axes.plot([line["pictures"] for line in with_loss], losses, color=_colour(colour), label=name)
    axes.set_yscale("log")
    axes.set_xlabel("pictures")
    axes.legend()
    figure.savefig(picture, format="png", metadata={"Software": None})


def save_reading_curve(points: Sequence[ReadingPoint], picture: Path) -> None:
    """Draws the shares of texts read exactly, with their 95 % intervals, against the height of the letters.

    Args:
        points: of the curve.
        picture: PNG file to write.
    """
    figure, axes = _chart("held-out words and numbers read exactly", (6, 3.4))
    heights, rates = [point.height for point in points], [100 * point.read.rate for point in points]
    lows, highs = zip(*(point.read.interval() for point in points), strict=True)
    axes.vlines(
        heights, [100 * low for low in lows], [100 * high for high in highs], color=_colour("grey"), linewidth=2
    )
    axes.plot(heights, rates, color=_colour("blue"), linewidth=2)
    axes.set_xticks(heights, [f"1/{1 / height:.0f}" for height in heights], fontsize="small", rotation=45)
    axes.set_ylim(0, 103)
    axes.set_xlabel("height of capitals / height of picture")
    axes.set_ylabel("%")
    figure.savefig(picture, format="png", metadata={"Software": None})
