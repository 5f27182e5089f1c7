"""Runs the arms in turns and keeps every run's time: machines are noisy, and noise should hit all arms alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from vlinstruct.bench.ours import OurArms
from vlinstruct.bench.theirs import TheirArms
from vlinstruct.bench.workload import Workload
from vlinstruct.model import Model

ARMS = ("transformers, plain", "transformers, AIO", "vlinstruct, plain", "vlinstruct, AIO")
_WARM_UPS = 2


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One arm's runs.

    Args:
        arm: one of ARMS.
        seconds: of every run.
        peak_bytes: the most memory that torch held on the accelerator in a run, weights included; None on a CPU.
    """

    arm: str
    seconds: tuple[float, ...]
    peak_bytes: int | None = None

    @property
    def median_s(self) -> float:
        """Median of the runs."""
        return statistics.median(self.seconds)

    @property
    def quartiles_s(self) -> tuple[float, float]:
        """First and third quartile."""
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The arms' timings on one workload."""

    workload: Workload
    timings: tuple[Timing, ...]

    def ratio(self, arm: str, to: str) -> float:
        """Returns an arm's median over another's."""
        medians = {timing.arm: timing.median_s for timing in self.timings}
        return medians[arm] / medians[to]


def picture() -> Image.Image:
    """Returns what is asked about; what it shows makes no difference to anybody."""
    return Image.radial_gradient("L").convert("RGB")


def timed_in_turns(arms: Mapping[str, Callable[[], None]], runs: int) -> tuple[Timing, ...]:
    """Runs every arm `runs` times, all of them in each turn, after two turns that are not counted."""
    measured: dict[str, list[tuple[float, int | None]]] = {arm: [] for arm in arms}
    for turn in range(_WARM_UPS + runs):
        for arm, run in arms.items():
            cost = _cost(run)
            if turn >= _WARM_UPS:
                measured[arm].append(cost)
    return tuple(_timing(arm, costs) for arm, costs in measured.items())


def _cost(run: Callable[[], None]) -> tuple[float, int | None]:
    """Returns a run's seconds and its peak memory on the accelerator."""
    if not torch.cuda.is_available():
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin, None
    torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - begin, torch.cuda.max_memory_allocated()


def _timing(arm: str, costs: Sequence[tuple[float, int | None]]) -> Timing:
    peaks = [peak for _, peak in costs if peak is not None]
    return Timing(arm=arm, seconds=tuple(seconds for seconds, _ in costs), peak_bytes=max(peaks, default=None))


def compare(pipeline: Model, theirs: Any, workloads: Sequence[Workload], runs: int) -> list[Comparison]:
    """Compares all four arms on every workload.

    Args:
        pipeline: ours; its language model becomes a replayed one.
        theirs: transformers' model with the same weights.
        workloads: what is asked and written.
        runs: of every arm, at least 2.
    """
    compared = []
    for workload in workloads:
        images = [picture()] * workload.batch
        ours, other = OurArms(pipeline, images, workload), TheirArms(theirs, pipeline.backend, images, workload)
        runnable = (other.plain, other.optimized, ours.plain, ours.optimized)
        timings = timed_in_turns(dict(zip(ARMS, runnable, strict=True)), runs)
        compared.append(Comparison(workload=workload, timings=timings))
    return compared
