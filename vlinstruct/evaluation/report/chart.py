"""Averages as drawings: a dot with its interval for every model and way to choose, on an axis that people read.

`as_svg` draws all of them as one file; a page draws each beside its numbers (`strip`), so that they stay readable on a
telephone. Written by hand: matplotlib is an extra, and a report should be there without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from vlinstruct.evaluation.report.table import Cell, Table
from vlinstruct.metrics.bootstrap import Interval
from vlinstruct.report.shell import text

REFERENCE = 100.0
_MAX_TICKS = 6
_STEPS = (1, 2, 5, 10)
_COLOURS = ("#1f5fa8", "#b3541e", "#1b6e3c", "#7a3e9d", "#555555")
_LEFT, _WIDTH, _RIGHT, _ROW, _HEAD, _MARGIN = 130, 520, 70, 14, 26, 34


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis from its first tick to its last.

    Args:
        ticks: at round numbers, ascending; the reference, 100, lies between the first and the last.
    """

    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Returns how far along the axis a value lies, 0 to 1; what is beyond its ends lies at them."""
        low, high = self.ticks[0], self.ticks[-1]
        return min(max((value - low) / (high - low), 0.0), 1.0)


def axis_of(table: Table) -> Axis:
    """Returns the axis on which all of a table's averages and intervals lie, and 100."""
    ends = [end for cell in table.cells for end in _ends(table.average(cell)) if math.isfinite(end)]
    return axis(min([REFERENCE, *ends]), max([REFERENCE, *ends]))


def axis(low: float, high: float) -> Axis:
    """Returns an axis from below one value to above another, with a tick every 1, 2 or 5 times a power of ten.

    >>> axis(84.2, 103).ticks
    (80.0, 85.0, 90.0, 95.0, 100.0, 105.0)
    >>> axis(99.7, 100.2).ticks
    (99.7, 99.8, 99.9, 100.0, 100.1, 100.2)
    """
    if low == high:
        low, high = low - 1, high + 1
    least_step = (high - low) / (_MAX_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(least_step))
    # An axis that begins at a tick below and ends at one above may need one step more than the values alone.
    for step in (power * multiple for multiple in (*_STEPS, 20)):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first < _MAX_TICKS:
            break
    return Axis(ticks=tuple(round(place * step, 10) for place in range(first, last + 1)))


def strip(axis: Axis, average: Interval, row: int) -> str:
    """Returns one average as a strip for a page; its numbers stand beside it, so that it says nothing by itself.

    Args:
        axis: of all strips.
        average: with its interval.
        row: which model's, for its colour and shape.
    """
    marks = [_line(axis, tick, "tick" if tick != REFERENCE else "tick reference") for tick in axis.ticks]
    if math.isfinite(average.value):
        low, high = ((end if math.isfinite(end) else average.value) for end in (average.low, average.high))
        ends = f'x1="{_percent(axis, low)}" x2="{_percent(axis, high)}"'
        marks.append(f'<line class="spread" {ends} y1="50%" y2="50%"/>')
        x = _percent(axis, average.value)
        square = f'<rect class="dot" x="{x}" y="50%" width="8" height="8" transform="translate(-4 -4)"/>'
        marks.append(square if row % 2 else f'<circle class="dot" cx="{x}" cy="50%" r="4.5"/>')
    kind = f"strip row-{row % len(_COLOURS)}"
    return f'<svg class="{kind}" width="100%" height="44" aria-hidden="true">{"".join(marks)}</svg>'


def ticks_strip(axis: Axis) -> str:
    """Returns the numbers of an axis as a strip."""
    anchors = {**dict.fromkeys(axis.ticks, "middle"), axis.ticks[0]: "start", axis.ticks[-1]: "end"}
    labels = "".join(
        f'<text x="{_percent(axis, tick)}" y="12" text-anchor="{anchors.get(tick, "middle")}"{_spare(axis, tick)}>'
        f"{tick:g}</text>"
        for tick in axis.ticks
    )
    return f'<svg class="strip" width="100%" height="16" aria-hidden="true">{labels}</svg>'


def _spare(axis: Axis, tick: float) -> str:
    """Marks the numbers that go where there is no room for all; 100 stays, and the ends that are far from it."""
    is_end = tick in (axis.ticks[0], axis.ticks[-1])
    is_far = abs(axis.share(tick) - axis.share(REFERENCE)) > 0.4
    return "" if tick == REFERENCE or (is_end and is_far) else ' class="spare"'


def _line(axis: Axis, value: float, kind: str) -> str:
    x = _percent(axis, value)
    return f'<line class="{kind}" x1="{x}" x2="{x}" y1="0" y2="100%"/>'


def _percent(axis: Axis, value: float) -> str:
    return f"{100 * axis.share(value):.2f}%"


def _ends(average: Interval) -> tuple[float, float, float]:
    return average.low, average.value, average.high


def as_svg(table: Table) -> str:
    """Returns the drawing: a panel per kind of words, a line per way to choose, a colour per model."""
    axis = axis_of(table)
    panel = _HEAD + len(table.columns) * (len(table.models) * _ROW + 6)
    bottom = len(table.words) * panel
    has_legend = len(table.models) > 1
    width, height = _LEFT + _WIDTH + _RIGHT, bottom + _MARGIN + 20 * has_legend
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *_grid(axis, bottom),
    ]
    for number, words in enumerate(table.words):
        top = number * panel + 16
        lines.append(f'<text x="4" y="{top}" font-weight="bold">{words} words</text>')
        for place, column in enumerate(table.columns):
            y = top + 16 + place * (len(table.models) * _ROW + 6)
            lines.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{column}</text>')
            for row, model in enumerate(table.models):
                average = table.average(Cell(model, words, column))
                lines += _dot(axis, average, y + row * _ROW, _COLOURS[row % len(_COLOURS)])
    if has_legend:
        lines += _legend(table, height - 8)
    return "\n".join([*lines, "</svg>", ""])


def _x(axis: Axis, value: float) -> float:
    return round(_LEFT + _WIDTH * axis.share(value), 1)


def _grid(axis: Axis, bottom: float) -> Iterator[str]:
    for tick in axis.ticks:
        x = _x(axis, tick)
        colour = "#888888" if tick == REFERENCE else "#dddddd"
        yield f'<line x1="{x}" x2="{x}" y1="20" y2="{bottom}" stroke="{colour}"/>'
        yield f'<text x="{x}" y="{bottom + 14}" text-anchor="middle" fill="#555555">{tick:g}</text>'


def _dot(axis: Axis, average: Interval, y: float, colour: str) -> Iterator[str]:
    if not math.isfinite(average.value):
        return
    x = _x(axis, average.value)
    if math.isfinite(average.low):
        ends = f'x1="{_x(axis, average.low)}" x2="{_x(axis, average.high)}"'
        yield f'<line {ends} y1="{y}" y2="{y}" stroke="{colour}" stroke-width="1.5"/>'
    yield f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>'
    yield f'<text x="{_LEFT + _WIDTH + 8}" y="{y + 4}" fill="{colour}">{average.value:.2f}</text>'


def _legend(table: Table, y: float) -> Iterator[str]:
    for row, model in enumerate(table.models):
        x, colour = _LEFT + 150 * row, _COLOURS[row % len(_COLOURS)]
        yield f'<circle cx="{x}" cy="{y - 4}" r="3.5" fill="{colour}"/>'
        yield f'<text x="{x + 8}" y="{y}">{text(model)}</text>'
