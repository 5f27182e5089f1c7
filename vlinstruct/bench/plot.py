"""Comparisons as a picture: one panel per workload, a bar per arm, quartiles as whiskers."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from vlinstruct.bench.compare import ARMS, Comparison, Timing
from vlinstruct.bench.report import heading
from vlinstruct.errors import ResourceError, UsageError

_FORMATS = (".png", ".svg", ".pdf")
_COLOURS = dict(zip(ARMS, ("#b0b0b0", "#808080", "#7fb3d5", "#1f77b4"), strict=True))


def require_plots(path: Path) -> None:
    """Refuses a plot that could not be drawn, before anything is measured.

    Raises:
        UsageError: the file's ending is none of a picture's.
        ResourceError: matplotlib is not installed.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UsageError.at("cannot write --plot", path, "unknown ending", f"Give {', '.join(_FORMATS)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise ResourceError("--plot needs matplotlib, which is not installed: pip install 'vlinstruct[plots]'.")


def save_plot(compared: Sequence[Comparison], path: Path) -> None:
    """Draws comparisons.

    Args:
        compared: one panel each.
        path: the file to write; its ending chooses the format.

    Raises:
        ResourceError: it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.6 + 1.9 * len(compared)), layout="constrained")
    for axes, one in zip(figure.subplots(len(compared), squeeze=False)[:, 0], compared, strict=True):
        _draw(axes, one)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise ResourceError.at("cannot write plot", path, why, "Give another path") from error


def _draw(axes: object, one: Comparison) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    medians = [1e3 * timing.median_s for timing in one.timings]
    spreads = list(zip(*(_whiskers(timing) for timing in one.timings), strict=True))
    arms = [timing.arm for timing in one.timings]
    axes.barh(arms, medians, xerr=spreads, color=[_COLOURS[arm] for arm in arms], capsize=3)
    for place, timing in enumerate(one.timings):
        label = f"{1e3 * timing.median_s:.1f} ms, {one.ratio(timing.arm, ARMS[0]):.2f}x"
        end = (1e3 * timing.quartiles_s[1], place)
        axes.annotate(label, end, (8, 0), va="center", textcoords="offset points", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(medians))
    axes.set_title(heading(one), fontsize=10, loc="left")
    axes.set_xlabel("milliseconds, median and quartiles")


def _whiskers(timing: Timing) -> tuple[float, float]:
    low, high = timing.quartiles_s
    return 1e3 * (timing.median_s - low), 1e3 * (high - timing.median_s)
