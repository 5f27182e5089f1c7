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
from vlinstruct.pipeline import Pipeline

ARMS = ("transformers, plain", "transformers, AIO", "vlinstruct, plain", "vlinstruct, AIO")
_WARM_UPS = 2


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One arm's runs.

    Args:
        arm: one of ARMS.
        seconds: of every run.
    """

    arm: str
    seconds: tuple[float, ...]

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


def _picture() -> Image.Image:
    """Returns what is asked about; what it shows makes no difference to anybody."""
    return Image.radial_gradient("L").convert("RGB")


def timed_in_turns(arms: Mapping[str, Callable[[], None]], runs: int) -> tuple[Timing, ...]:
    """Runs every arm `runs` times, all of them in each turn, after two turns that are not counted."""
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for turn in range(_WARM_UPS + runs):
        for arm, run in arms.items():
            begin = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= _WARM_UPS:
                seconds[arm].append(time.perf_counter() - begin)
    return tuple(Timing(arm=arm, seconds=tuple(values)) for arm, values in seconds.items())


def compare(pipeline: Pipeline, theirs: Any, workloads: Sequence[Workload], runs: int) -> list[Comparison]:
    """Compares all four arms on every workload.

    Args:
        pipeline: ours; its language model becomes a replayed one.
        theirs: transformers' model with the same weights.
        workloads: what is asked and written.
        runs: of every arm, at least 2.
    """
    compared = []
    for workload in workloads:
        images = [_picture()] * workload.batch
        ours, other = OurArms(pipeline, images, workload), TheirArms(theirs, pipeline.model, images, workload)
        runnable = (other.plain, other.optimized, ours.plain, ours.optimized)
        timings = timed_in_turns(dict(zip(ARMS, runnable, strict=True)), runs)
        compared.append(Comparison(workload=workload, timings=timings))
    return compared
