"""Training comparisons as a table and as a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from vlinstruct.bench.compare import Timing
from vlinstruct.bench.training import TRAINING_ARMS, TrainingComparison, median_and_quartiles
from vlinstruct.bench.training_workload import TrainingWorkload

_MB = 10**6
_GFLOP = 1e9


def training_record(
    backbone: str, compared: Sequence[TrainingComparison], environment: dict[str, Any]
) -> dict[str, Any]:
    """Returns everything that was measured, every epoch's seconds included.

    Args:
        backbone: what was measured.
        compared: the comparisons.
        environment: what it was measured on.
    """
    return {
        "schema": "vlinstruct.bench.training/1",
        "id": backbone,
        "status": "ok",
        "environment": environment,
        "trainings": [
            {
                "lengths": one.workload.name,
                "samples": one.workload.num_samples,
                "batch": one.workload.batch_size,
                "seconds": {timing.arm: list(timing.seconds) for timing in one.timings},
                "peak_bytes": {timing.arm: timing.peak_bytes for timing in one.timings if timing.peak_bytes},
                "median_samples_per_s": {arm: median_and_quartiles(one.samples_per_s(arm))[1] for arm in TRAINING_ARMS},
                "median_speedup": {arm: median_and_quartiles(one.speedups(arm))[1] for arm in TRAINING_ARMS},
                "speedup_bound": {arm: one.bound(arm) for arm in TRAINING_ARMS},
                "flops_per_sample": {arm: asdict(flops) for arm, flops in one.flops.items()},
            }
            for one in compared
        ],
    }


def training_table(compared: Sequence[TrainingComparison]) -> str:
    """Returns two blocks of lines per workload: what was measured, and the compute that bounds it."""
    return "\n\n".join("\n".join([*_speeds(one), "", *_computes(one)]) for one in compared)


def training_heading(load: TrainingWorkload) -> str:
    """Says in a line what was learned."""
    return f"{load.name}, batches of {load.batch_size}"


def _speeds(one: TrainingComparison) -> list[str]:
    has_peaks = any(timing.peak_bytes is not None for timing in one.timings)
    head = f"{training_heading(one.workload):40} {'samples/s':>9} {'quartiles':>16} {'times':>6} {'quartiles':>14}"
    lines = [f"{head} {'bound':>6}" + has_peaks * "  peak memory"]
    return lines + [_speed(one, timing) for timing in one.timings]


def _speed(one: TrainingComparison, timing: Timing) -> str:
    low, median, high = median_and_quartiles(one.samples_per_s(timing.arm))
    slow, times, fast = median_and_quartiles(one.speedups(timing.arm))
    speed = f"{median:9.1f} {f'{low:.1f} to {high:.1f}':>16}"
    speedup = f"{times:6.2f} {f'{slow:.2f} to {fast:.2f}':>14} {one.bound(timing.arm):6.2f}"
    peak = f"  {timing.peak_bytes / _MB:8.0f} MB" if timing.peak_bytes is not None else ""
    return f"  {timing.arm:38} {speed} {speedup}{peak}"


def _computes(one: TrainingComparison) -> list[str]:
    parts = ("vision", "qformer", "forward", "backward", "total")
    lines = [f"{'  GFLOP per sample, padding included':40} " + " ".join(f"{part:>9}" for part in parts)]
    for arm, flops in one.flops.items():
        counts = (getattr(flops, part) / _GFLOP for part in parts)
        lines.append(f"  {arm:38} " + " ".join(f"{count:9.3f}" for count in counts))
    return lines
