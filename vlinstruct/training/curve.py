"""Draws a training's log as an SVG: every update, their smoothed course, and the validations.

python -m vlinstruct.training.curve ADAPTER    draws ADAPTER/curve.svg anew, also of a training that was stopped
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vlinstruct.errors import DataError, VlinstructError
from vlinstruct.files import written_atomically
from vlinstruct.training.state import read_log

Points = Sequence[tuple[float, float]]

CURVE_FILE = "curve.svg"
_WINDOWS = 20  # time constants in a run: a window that does not grow with it shows a long one as noise
_LEFT, _TOP, _WIDTH, _HEIGHT = 64, 34, 700, 320
_NUM_TICKS = 5
_UPDATE, _SMOOTHED, _VALIDATION = "#b7cde3", "#1a64a0", "#c2282d"


def smoothed(values: Sequence[float]) -> list[float]:
    """Returns the exponential moving average, whose time constant is a twentieth of the values.

    Each is divided by the sum of its weights: without that the first value, the highest of a training, would weigh as
    much as all that were never seen before it.

    >>> smoothed([1.0] * 20 + [0.0] * 20)[17:24]
    [1.0, 1.0, 1.0, 0.5, 0.25, 0.125, 0.0625]
    """
    decay = 1 - 1 / max(1.0, len(values) / _WINDOWS)
    total, weight = 0.0, 0.0
    smooth = []
    for value in values:
        total, weight = decay * total + value, decay * weight + 1
        smooth.append(round(total / weight, 6))
    return smooth


def save_curve(folder: Path) -> Path:
    """Draws `log.jsonl` of an adapter's folder beside it.

    Returns:
        The drawing.

    Raises:
        DataError: the log is missing, or is none.
        ResourceError: it cannot be written.
    """
    log = folder / "log.jsonl"
    if not log.is_file():
        raise DataError.at("cannot draw", log, "there is no such file", "Name the folder of a training")
    records = read_log(log)
    updates = [(record["step"], record["loss"]) for record in records if record.get("loss") is not None]
    validations = [(record["step"], record["eval_loss"]) for record in records if "eval_loss" in record]
    with written_atomically(folder / CURVE_FILE) as path:
        path.write_text(as_svg(updates, validations), encoding="utf-8")
    return folder / CURVE_FILE


def as_svg(updates: Points, validations: Points) -> str:
    """Returns the drawing.

    Args:
        updates: of every update its number and loss.
        validations: the same of every validation.
    """
    course = list(zip([step for step, _ in updates], smoothed([loss for _, loss in updates]), strict=True))
    losses = [loss for _, loss in (*updates, *validations)]
    steps = [step for step, _ in (*updates, *validations)]
    x_ticks, y_ticks = _ticks(0, max(steps, default=1)), _ticks(min(losses, default=0), max(losses, default=1))
    x_end = max(steps, default=1) or 1
    y_begin, y_end = y_ticks[0], max(y_ticks[-1], max(losses, default=1))

    def at(point: tuple[float, float]) -> str:
        x = _LEFT + _WIDTH * point[0] / x_end
        y = _TOP + _HEIGHT * (1 - (point[1] - y_begin) / (y_end - y_begin))
        return f"{x:.1f},{y:.1f}"

    def line(points: Points, colour: str, width: float) -> str:
        path = " ".join(map(at, points))
        return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'

    series = [("update", _UPDATE), ("update, smoothed", _SMOOTHED)]
    lines = [line(updates, _UPDATE, 1), line(course, _SMOOTHED, 2)]
    if validations:
        series.append(("validation", _VALIDATION))
        lines.append(line(validations, _VALIDATION, 1.5))
        for point in validations:
            x, y = at(point).split(",")
            lines.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{_VALIDATION}"/>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 24} {_TOP + _HEIGHT + 52}" '
            'font-family="sans-serif" font-size="12" role="img" aria-label="loss of every update and validation">',
            '<rect width="100%" height="100%" fill="white"/>',
            *_grid(x_ticks, y_ticks, at),
            *lines,
            *_legend(series),
            "</svg>",
            "",
        ]
    )


def _grid(
    x_ticks: Sequence[float], y_ticks: Sequence[float], at: Callable[[tuple[float, float]], str]
) -> Iterator[str]:
    right, bottom = _LEFT + _WIDTH, _TOP + _HEIGHT
    for tick in y_ticks:
        y = at((0, tick)).split(",")[1]
        yield f'<line x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}" stroke="#dddddd"/>'
        yield f'<text x="{_LEFT - 8}" y="{y}" dy="4" text-anchor="end" fill="#444444">{tick:,g}</text>'
    for tick in x_ticks:
        x = at((tick, y_ticks[0])).split(",")[0]
        yield f'<line x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}" stroke="#888888"/>'
        yield f'<text x="{x}" y="{bottom + 18}" text-anchor="middle" fill="#444444">{tick:,g}</text>'
    yield f'<line x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}" stroke="#888888"/>'
    yield f'<text x="{_LEFT + _WIDTH / 2}" y="{bottom + 40}" text-anchor="middle" fill="#444444">update</text>'
    yield f'<text x="8" y="{_TOP - 14}" fill="#444444">loss, nats per answer token</text>'


def _legend(series: Sequence[tuple[str, str]]) -> Iterator[str]:
    for number, (name, colour) in enumerate(series):
        x = _LEFT + _WIDTH - 130 * (len(series) - number) + 20
        yield f'<line x1="{x}" x2="{x + 18}" y1="{_TOP - 18}" y2="{_TOP - 18}" stroke="{colour}" stroke-width="3"/>'
        yield f'<text x="{x + 24}" y="{_TOP - 14}" fill="#444444">{name}</text>'


def _ticks(low: float, high: float) -> list[float]:
    """Returns round numbers from at most `low` to `high`, of which the last may lie below it.

    >>> _ticks(0, 50), _ticks(0.12, 0.58)
    ([0, 10, 20, 30, 40, 50], [0.1, 0.2, 0.3, 0.4, 0.5])
    """
    span = max(high - low, abs(high) * 1e-3, 1e-9)
    scale = 10 ** math.floor(math.log10(span / _NUM_TICKS))
    step = next(scale * factor for factor in (1, 2, 5, 10) if scale * factor * _NUM_TICKS >= span)
    first, last = math.floor(low / step), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, max(last, first + 1) + 1)]


def main() -> None:
    """Draws the curve of a folder."""
    parser = argparse.ArgumentParser(description="Draw the curve of a training anew.")
    parser.add_argument("adapter", type=Path, help="its folder, with log.jsonl")
    try:
        print(save_curve(parser.parse_args().adapter))
    except VlinstructError as error:
        sys.exit(f"error: {error.message}")


if __name__ == "__main__":
    main()
