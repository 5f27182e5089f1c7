"""Answers, plain and optimized, beside transformers': every arm writes the same tokens, and is timed in turns."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

from PIL import Image
from torch import nn

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.bench.replay import ReplayedBackend
from vlinstruct.bench.theirs import TheirArms
from vlinstruct.bench.timing import Timing, peaks_of, picture, ratio_of, seconds_of, timed_in_turns
from vlinstruct.bench.work import Work, bytes_per_second, work_of
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
_MOST_ONE_BY_ONE = 8
_MB = 10**6
_FORMATS = (".png", ".svg", ".pdf")  # of the plot
_COLOURS = dict(zip(ARMS, ("#b0b0b0", "#808080", "#7fb3d5", "#1f77b4", "#5dade2"), strict=True))
NOTES = """floor: to read the weights as often as the arm reads them takes so long here
calls: passes of encoder and decoder; tokens: positions that go through them, padding included"""
_ONE_BY_ONE = f"batches above {_MOST_ONE_BY_ONE}: without AIO over transformers, which goes picture by picture"
_DRAFTS = "drafts: words guessed ahead of a rewriting, checked at once; the more are right, the fewer its calls"

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
    """The arms' timings on one workload, and what each did in a run."""

    workload: Workload
    timings: tuple[Timing, ...]
    work: Mapping[str, Work]

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
    stacks = [stack for network in (backend.network, theirs) for stack in stacks_of(network.language_model)]
    comparisons, per_second = [], bytes_per_second(backend.network)
    for at, workload in enumerate(workloads, start=1):
        _log.info("%d of %d: %s", at, len(workloads), workload.heading)
        images = [picture()] * workload.batch
        reference = TheirArms(theirs, backend, images, workload)
        ours = OurArms(backend, images, workload)
        runs_of = (reference.plain, reference.optimized, ours.plain, ours.optimized, ours.unsure)
        arms = dict(zip(ARMS, runs_of, strict=True))
        if workload.batch > _MOST_ONE_BY_ONE:
            del arms[ARMS[1]]
        timings = timed_in_turns(arms, runs)
        ours.backend.recordings = None  # counted layer by layer, none of which a replay calls
        work = work_of([backend.network, theirs], stacks, arms, per_second=per_second)
        comparisons.append(Comparison(workload=workload, timings=timings, work=work))
    return comparisons


def stacks_of(language_model: nn.Module) -> list[nn.Module]:
    """Returns an encoder and a decoder, or a decoder alone: all but embeddings and head, in transformers as here."""
    return [part for part in language_model.children() if not isinstance(part, (nn.Embedding, nn.Linear))]


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
                **arms_record(comparison.timings, comparison.work, comparison.workload.batch),
            }
            for comparison in comparisons
        ],
        "cold_start": {"seconds": seconds_of(cold), "peak_bytes": peaks_of(cold)},
    }


def arms_record(timings: Sequence[Timing], work: Mapping[str, Work], batch: int) -> dict[str, Any]:
    """Returns what a record has of the arms of one workload, each by its name.

    Args:
        timings: of the arms.
        work: of the arms.
        batch: pictures that were asked about together.
    """
    return {
        "seconds": seconds_of(timings),
        "items_per_s": {timing.arm: batch / timing.median_s for timing in timings},
        "floor_seconds": {arm: done.floor_seconds for arm, done in work.items()},
        "calls": {arm: done.num_calls for arm, done in work.items()},
        "tokens": {arm: done.num_tokens for arm, done in work.items()},
        "peak_bytes": peaks_of(timings),
        "median_ratio_to_transformers_plain": {
            timing.arm: ratio_of(timings, timing.arm, ARMS[0]) for timing in timings
        },
    }


def as_table(comparisons: Sequence[Comparison], cold: Sequence[Timing] = ()) -> str:
    """Returns a block of lines per workload and one for the cold starts: median, quartiles, ratio to the first arm."""
    blocks = [
        block(comparison.heading, comparison.timings, unit="ms", work=comparison.work, batch=comparison.workload.batch)
        for comparison in comparisons
    ]
    if cold:
        blocks.append(block("cold start, whole processes on the CPU", cold, unit="s"))
    return "\n\n".join(["\n".join(block) for block in blocks] + [f"{NOTES}\n{_ONE_BY_ONE}\n{_DRAFTS}"])


def block(
    head: str,
    timings: Sequence[Timing],
    *,
    unit: Literal["ms", "s"],
    work: Mapping[str, Work] = MappingProxyType({}),
    batch: int = 1,
) -> list[str]:
    """Returns a line per arm under its head, with ratios to the first arm; 100 characters at most.

    Args:
        head: what was measured.
        timings: of the arms.
        unit: of the times.
        work: of the arms; empty where it was not counted.
        batch: items of a run.
    """
    scale = 1e3 if unit == "ms" else 1
    has_peaks = any(timing.peak_bytes is not None for timing in timings)
    columns = f"  {f'times in {unit}':34} {'median':>6} {'quartiles':>14} {'ratio':>5}"
    columns += f" {'floor':>6} {'items/s':>7} {'calls':>5} {'tokens':>6}" if work else ""
    lines = [head, columns + has_peaks * f" {'peak MB':>7}"]
    for timing in timings:
        low, high = timing.quartiles_s
        spread = f"{_rounded(scale * low)} to {_rounded(scale * high)}"
        ratio = ratio_of(timings, timing.arm, timings[0].arm)
        line = f"  {timing.arm:34} {_rounded(scale * timing.median_s):>6} {spread:>14} {ratio:5.2f}"
        if work:
            done, speed = work[timing.arm], _rounded(batch / timing.median_s)
            line += f" {_rounded(scale * done.floor_seconds):>6} {speed:>7} {done.num_calls:5} {done.num_tokens:6}"
        lines.append(line + (f" {timing.peak_bytes / _MB:7.0f}" if timing.peak_bytes is not None else ""))
    return lines


def _rounded(value: float) -> str:
    """Spells three digits at least.

    >>> [_rounded(value) for value in (0.1234, 12.34, 1234.5)]
    ['0.12', '12.3', '1234']
    """
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


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
