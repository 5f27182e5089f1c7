"""Comparisons and cold starts as a table and as a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlinstruct.bench.compare import ARMS, Comparison, Timing

_MB = 10**6


def as_record(
    backbone: str, compared: Sequence[Comparison], cold: Sequence[Timing], environment: dict[str, Any]
) -> dict[str, Any]:
    """Returns everything that was measured, every run's seconds included.

    Args:
        backbone: what was measured.
        compared: the comparisons.
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
                "answer_tokens": one.workload.answer_tokens,
                "batch": one.workload.batch,
                "acceptance": one.workload.acceptance,
                "seconds": _seconds(one.timings),
                "peak_bytes": _peaks(one.timings),
                "median_ratio_to_transformers_plain": {arm: one.ratio(arm, ARMS[0]) for arm in ARMS},
            }
            for one in compared
        ],
        "cold_start": {"seconds": _seconds(cold), "peak_bytes": _peaks(cold)},
    }


def _seconds(timings: Sequence[Timing]) -> dict[str, list[float]]:
    return {timing.arm: list(timing.seconds) for timing in timings}


def _peaks(timings: Sequence[Timing]) -> dict[str, int]:
    return {timing.arm: timing.peak_bytes for timing in timings if timing.peak_bytes is not None}


def as_table(compared: Sequence[Comparison], cold: Sequence[Timing] = ()) -> str:
    """Returns a block of lines per workload and one for the cold starts: median, quartiles, ratio to the first arm."""
    blocks = [_block(heading(one), one.timings, to=ARMS[0], unit="ms") for one in compared]
    if cold:
        blocks.append(_block("cold start, whole processes on the CPU", cold, to=cold[0].arm, unit="s"))
    return "\n\n".join("\n".join(block) for block in blocks)


def heading(one: Comparison) -> str:
    """Says in a line what was asked."""
    load = one.workload
    return f"batch {load.batch}, answers of {load.answer_tokens} tokens, {100 * load.acceptance:.0f} % of drafts right"


def _block(head: str, timings: Sequence[Timing], *, to: str, unit: str) -> list[str]:
    scale, digits = (1e3, 1) if unit == "ms" else (1, 2)
    has_peaks = any(timing.peak_bytes is not None for timing in timings)
    reference = next(timing.median_s for timing in timings if timing.arm == to)
    lines = [f"{head:52} {'median':>10} {'quartiles':>17}  ratio" + has_peaks * "  peak memory"]
    for timing in timings:
        low, high = timing.quartiles_s
        spread = f"{scale * low:.{digits}f} to {scale * high:.{digits}f}"
        time = f"{scale * timing.median_s:.{digits}f} {unit}"
        peak = f"  {timing.peak_bytes / _MB:8.0f} MB" if timing.peak_bytes is not None else ""
        lines.append(f"  {timing.arm:50} {time:>10} {spread:>17} {timing.median_s / reference:6.2f}{peak}")
    return lines
