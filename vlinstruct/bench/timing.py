"""Runs arms in turns and keeps every run's time: machines are noisy, and noise should hit all arms alike."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from PIL import Image

_NUM_WARM_UPS = 2


def median_and_quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns first quartile, median and third quartile of at least two values.

    >>> median_and_quartiles([1.0, 2.0, 3.0, 4.0, 5.0])
    (2.0, 3.0, 4.0)
    """
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, statistics.median(values), high


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One arm's runs.

    Args:
        arm: its name in tables and records.
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
        low, _, high = median_and_quartiles(self.seconds)
        return low, high

    def ratio(self, to: Timing) -> float:
        """Returns the median, over the turns, of this arm's seconds over another's in the same turn.

        Turn by turn, as a machine that is busy for a while is busy for both.
        """
        return statistics.median(mine / theirs for mine, theirs in zip(self.seconds, to.seconds, strict=True))


def ratio_of(timings: Sequence[Timing], arm: str, to: str) -> float:
    """Returns the ratio of two arms by their names."""
    by_arm = {timing.arm: timing for timing in timings}
    return by_arm[arm].ratio(by_arm[to])


def seconds_of(timings: Sequence[Timing]) -> dict[str, list[float]]:
    """Returns every run's seconds by arm, for a record."""
    return {timing.arm: list(timing.seconds) for timing in timings}


def peaks_of(timings: Sequence[Timing]) -> dict[str, int]:
    """Returns the peak memory in bytes by arm, of those that have one, for a record."""
    return {timing.arm: timing.peak_bytes for timing in timings if timing.peak_bytes is not None}


def picture() -> Image.Image:
    """Returns the picture that every arm is asked about: a grey gradient, as no timing depends on what it shows."""
    return Image.radial_gradient("L").convert("RGB")


def timed_in_turns(arms: Mapping[str, Callable[[], None]], runs: int) -> tuple[Timing, ...]:
    """Runs every arm `runs` times, all of them in each turn, after two turns that are not counted.

    The first runs compile kernels and fill caches; a second one is needed where a first only fills them.

    Args:
        arms: what is run, by name.
        runs: of every arm, at least 2.
    """
    measured: dict[str, list[tuple[float, int | None]]] = {arm: [] for arm in arms}
    for turn in range(_NUM_WARM_UPS + runs):
        for arm, run in arms.items():
            cost = _cost(run)
            if turn >= _NUM_WARM_UPS:
                measured[arm].append(cost)
    return tuple(
        Timing(
            arm=arm,
            seconds=tuple(seconds for seconds, _ in costs),
            peak_bytes=max((peak for _, peak in costs if peak is not None), default=None),
        )
        for arm, costs in measured.items()
    )


def _cost(run: Callable[[], None]) -> tuple[float, int | None]:
    """Returns a run's seconds and its peak memory on the accelerator."""
    if not torch.cuda.is_available():
        start = time.perf_counter()
        run()
        return time.perf_counter() - start, None
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()  # kernels are queued: without it the time would be that of queueing them
    return time.perf_counter() - start, torch.cuda.max_memory_allocated()


def environment(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Returns what a measurement was made on, for its record: versions, device, dtype and threads."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }
