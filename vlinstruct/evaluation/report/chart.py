"""The averages of a table as a drawing: a dot with its interval for every model and way to choose (SVG)."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator

from vlinstruct.evaluation.report.table import Cell, Table
from vlinstruct.metrics.bootstrap import Interval

_COLOURS = ("#555555", "#1f77b4", "#d62728", "#2ca02c", "#9467bd")
_LEFT, _WIDTH, _ROW, _HEAD, _MARGIN = 130, 520, 13, 26, 34


def as_svg(table: Table) -> str:
    """Returns the drawing: a panel per kind of words, a line per way to choose, a colour per model."""
    low, high = _range(table)
    panel = _HEAD + len(table.columns) * (len(table.models) * _ROW + 6)
    height = len(table.words) * panel + _MARGIN + 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 120} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{_LEFT + _WIDTH + 120}" height="{height}" fill="white"/>',
        *_grid(low, high, len(table.words) * panel),
    ]
    for number, words in enumerate(table.words):
        top = number * panel + 16
        lines.append(f'<text x="4" y="{top}" font-weight="bold">{words} words</text>')
        for place, column in enumerate(table.columns):
            y = top + 16 + place * (len(table.models) * _ROW + 6)
            lines.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{column}</text>')
            for row, model in enumerate(table.models):
                average = table.average(Cell(model, words, column))
                lines += _dot(average, low, high, y + row * _ROW, _COLOURS[row % len(_COLOURS)])
    lines += _legend(table, height - 8)
    return "\n".join([*lines, "</svg>", ""])


def _range(table: Table) -> tuple[float, float]:
    """Returns whole numbers that all intervals lie between."""
    averages = [
        table.average(Cell(model, words, column))
        for model in table.models
        for words in table.words
        for column in table.columns
    ]
    ends = [end for average in averages for end in (average.low, average.value, average.high) if math.isfinite(end)]
    return (math.floor(min(ends)) - 1, math.ceil(max(ends)) + 1) if ends else (0, 100)


def _x(value: float, low: float, high: float) -> float:
    return round(_LEFT + _WIDTH * (value - low) / (high - low), 1)


def _grid(low: float, high: float, bottom: float) -> Iterator[str]:
    step = max(1, round((high - low) / 10))
    for value in range(int(low), int(high) + 1, step):
        x = _x(value, low, high)
        colour = "#888888" if value == 100 else "#dddddd"
        yield f'<line x1="{x}" x2="{x}" y1="20" y2="{bottom}" stroke="{colour}"/>'
        yield f'<text x="{x}" y="{bottom + 14}" text-anchor="middle" fill="#555555">{value}</text>'


def _dot(average: Interval, low: float, high: float, y: float, colour: str) -> Iterator[str]:
    if not math.isfinite(average.value):
        return
    x = _x(average.value, low, high)
    if math.isfinite(average.low):
        ends = f'x1="{_x(average.low, low, high)}" x2="{_x(average.high, low, high)}"'
        yield f'<line {ends} y1="{y}" y2="{y}" stroke="{colour}" stroke-width="1.5"/>'
    yield f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>'
    yield f'<text x="{_LEFT + _WIDTH + 8}" y="{y + 4}" fill="{colour}">{average.value:.2f}</text>'


def _legend(table: Table, y: float) -> Iterator[str]:
    for row, model in enumerate(table.models):
        x, colour = _LEFT + 150 * row, _COLOURS[row % len(_COLOURS)]
        yield f'<circle cx="{x}" cy="{y - 4}" r="3.5" fill="{colour}"/>'
        yield f'<text x="{x + 8}" y="{y}">{html.escape(model)}</text>'
