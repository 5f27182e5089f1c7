"""Answers, plain and optimized, beside transformers': every arm writes the same tokens, and is timed in turns."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from PIL import Image

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.bench.floor import floors
from vlinstruct.bench.replay import ReplayedBackend
from vlinstruct.bench.theirs import TheirArms
from vlinstruct.bench.timing import Timing, peaks_of, picture, ratio_of, seconds_of, timed_in_turns
from vlinstruct.bench.workload import INSTRUCTION, Workload
from vlinstruct.errors import ResourceError, UsageError
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.values import good

ARMS = (
    "transformers, plain",
    "transformers, AIO",
    "vlinstruct, plain",
    "vlinstruct, AIO",
    "vlinstruct, -O of an unsure answer",
)
_MB = 10**6
_FORMATS = (".png", ".svg", ".pdf")  # of the plot
_COLOURS = dict(zip(ARMS, ("#b0b0b0", "#808080", "#7fb3d5", "#1f77b4", "#5dade2"), strict=True))
_FLOOR = "floor: to read the weights as often as the arm reads them takes so long here"
_DRAFTS = "drafts: words guessed ahead of a rewriting and checked all at once; the more are right, the fewer its steps"

_log = logging.getLogger(__name__)


class Drawable(Protocol):
    """Arms that were timed on one workload."""

    @property
    def heading(self) -> str:
        """What was asked, in a line."""
        ...

    @property
    def timings(self) -> tuple[Timing, ...]:
        """Of every arm."""
        ...

    def ratio(self, arm: str, to: str) -> float:
        """Returns how many times another arm's time an arm takes."""
        ...


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The arms' timings on one workload, and the least that each could take, in seconds (`floor.floors`)."""

    workload: Workload
    timings: tuple[Timing, ...]
    floors: Mapping[str, float]

    @property
    def heading(self) -> str:
        """What was asked, in a line."""
        return self.workload.heading

    def ratio(self, arm: str, to: str) -> float:
        """Returns how many times another arm's time an arm takes."""
        return ratio_of(self.timings, arm, to)


class OurArms:
    """Our arms: the plain answer, and instruction optimization with the answer, always and where that is unsure.

    Args:
        backend: computes; it is not changed.
        images: one per row.
        workload: what is asked and written.
    """

    def __init__(self, backend: InstructBlipBackend, images: Sequence[Image.Image], workload: Workload) -> None:
        self.backend = ReplayedBackend(backend, workload.acceptance)
        self.images = images
        self.questions = [INSTRUCTION] * len(images)
        self.generation = GenerationSettings(max_new_tokens=workload.answer_tokens)

    def plain(self) -> None:
        """Answers."""
        self._ask(optimize=False)

    def optimized(self) -> None:
        """Rewrites, scores, compares, scores and answers."""
        self._ask(optimize=True, optimization=OptimizationSettings(select="ias", when="always"))

    def unsure(self) -> None:
        """Optimizes by default, where the answer to the words as typed is unsure: a sure one costs a plain answer."""
        self._ask(optimize=True, optimization=OptimizationSettings(sure_above=1.0))

    def _ask(self, **settings: Any) -> None:
        # Every run starts from nothing: a new model remembers no rewriting of an earlier one, and pictures that
        # are seen anew have no prefixes yet.
        model = Model(self.backend)
        seen = [good(outcome) for outcome in model.see_each(self.images)]
        for outcome in model.ask_each(seen, self.questions, generation=self.generation, **settings):
            good(outcome)


def compare(backend: InstructBlipBackend, theirs: Any, workloads: Sequence[Workload], runs: int) -> list[Comparison]:
    """Compares all arms on every workload.

    Args:
        backend: ours.
        theirs: transformers' model with the same weights.
        workloads: what is asked and written.
        runs: of every arm, at least 2.
    """
    comparisons = []
    for at, workload in enumerate(workloads, start=1):
        _log.info("%d of %d: %s", at, len(workloads), workload.heading)
        images = [picture()] * workload.batch
        reference = TheirArms(theirs, backend, images, workload)
        ours = OurArms(backend, images, workload)
        runs_of = (reference.plain, reference.optimized, ours.plain, ours.optimized, ours.unsure)
        arms = dict(zip(ARMS, runs_of, strict=True))
        timings = timed_in_turns(arms, runs)
        least = floors([backend.network, theirs], arms)
        comparisons.append(Comparison(workload=workload, timings=timings, floors=least))
    return comparisons


def as_record(
    backbone: str, comparisons: Sequence[Comparison], cold: Sequence[Timing], environment: dict[str, Any]
) -> dict[str, Any]:
    """Returns everything that was measured, every run's seconds included.

    Args:
        backbone: what was measured.
        comparisons: of all workloads.
        cold: the cold starts; may be empty.
        environment: what it was measured on.
    """
    return {
        "schema": "vlinstruct.bench/1",
        "id": backbone,
        "status": "ok",
        "environment": environment,
        "comparisons": [
            {
                "answer_tokens": comparison.workload.answer_tokens,
                "batch": comparison.workload.batch,
                "acceptance": comparison.workload.acceptance,
                "seconds": seconds_of(comparison.timings),
                "floor_seconds": dict(comparison.floors),
                "peak_bytes": peaks_of(comparison.timings),
                "median_ratio_to_transformers_plain": {arm: comparison.ratio(arm, ARMS[0]) for arm in ARMS},
            }
            for comparison in comparisons
        ],
        "cold_start": {"seconds": seconds_of(cold), "peak_bytes": peaks_of(cold)},
    }


def as_table(comparisons: Sequence[Comparison], cold: Sequence[Timing] = ()) -> str:
    """Returns a block of lines per workload and one for the cold starts: median, quartiles, ratio to the first arm."""
    blocks = [
        block(comparison.heading, comparison.timings, to=ARMS[0], unit="ms", floors=comparison.floors)
        for comparison in comparisons
    ]
    if cold:
        blocks.append(block("cold start, whole processes on the CPU", cold, to=cold[0].arm, unit="s"))
    return "\n\n".join(["\n".join(block) for block in blocks] + [f"{_FLOOR}\n{_DRAFTS}"])


def block(
    head: str, timings: Sequence[Timing], *, to: str, unit: str, floors: Mapping[str, float] = MappingProxyType({})
) -> list[str]:
    """Returns a line per arm under its head, in `unit` (ms or s), with ratios to the arm `to`; `floors` are seconds."""
    scale, digits = (1e3, 1) if unit == "ms" else (1, 2)
    has_peaks = any(timing.peak_bytes is not None for timing in timings)
    floor_head = f" {'floor':>10}" if floors else ""
    lines = [f"{head:52} {'median':>10} {'quartiles':>17}  ratio{floor_head}" + has_peaks * "  peak memory"]
    for timing in timings:
        low, high = timing.quartiles_s
        spread = f"{scale * low:.{digits}f} to {scale * high:.{digits}f}"
        time = f"{scale * timing.median_s:.{digits}f} {unit}"
        peak = f"  {timing.peak_bytes / _MB:8.0f} MB" if timing.peak_bytes is not None else ""
        floor = f" {f'{scale * floors[timing.arm]:.{digits}f} {unit}':>10}" if floors else ""
        ratio = ratio_of(timings, timing.arm, to)
        lines.append(f"  {timing.arm:50} {time:>10} {spread:>17} {ratio:6.2f}{floor}{peak}")
    return lines


def require_plots(path: Path) -> None:
    """Refuses a plot that could not be drawn, before anything is measured.

    Raises:
        UsageError: the file's ending is none of a picture's, or its folder does not exist.
        ResourceError: matplotlib is not installed.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UsageError.at("cannot write --plot", path, "unknown ending", f"Give {', '.join(_FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise UsageError.at("cannot write --plot", path, "its folder does not exist", "Create the folder first")
    if importlib.util.find_spec("matplotlib") is None:
        raise ResourceError("--plot needs matplotlib, which is not installed: pip install 'vlinstruct[plots]'.")


def save_plot(comparisons: Sequence[Drawable], path: Path) -> None:
    """Draws comparisons: one panel per workload, a bar per arm, quartiles as whiskers.

    Args:
        comparisons: one panel each.
        path: the file to write; its ending chooses the format.

    Raises:
        ResourceError: it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.6 + 1.9 * len(comparisons)), layout="constrained")
    for axes, comparison in zip(figure.subplots(len(comparisons), squeeze=False)[:, 0], comparisons, strict=True):
        arms = [timing.arm for timing in comparison.timings]
        medians = [1e3 * timing.median_s for timing in comparison.timings]
        quartiles = [(1e3 * low, 1e3 * high) for low, high in (timing.quartiles_s for timing in comparison.timings)]
        below = [median - low for median, (low, _) in zip(medians, quartiles, strict=True)]
        above = [high - median for median, (_, high) in zip(medians, quartiles, strict=True)]
        axes.barh(arms, medians, xerr=[below, above], color=[_COLOURS[arm] for arm in arms], capsize=3)
        for place, (arm, median, (_, high)) in enumerate(zip(arms, medians, quartiles, strict=True)):
            label = f"{median:.1f} ms, {comparison.ratio(arm, ARMS[0]):.2f}x"
            axes.annotate(label, (high, place), (8, 0), va="center", textcoords="offset points", fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.3 * max(high for _, high in quartiles))
        axes.set_title(comparison.heading, fontsize=10, loc="left")
        axes.set_xlabel("milliseconds, median and quartiles")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise ResourceError.at("cannot write plot", path, why, "Give another path") from error
