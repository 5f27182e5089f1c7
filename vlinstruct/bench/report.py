"""Comparisons as a table and as a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlinstruct.bench.compare import ARMS, Comparison


def as_record(backbone: str, compared: Sequence[Comparison]) -> dict[str, Any]:
    """Returns everything that was measured, every run's seconds included."""
    return {
        "schema": "vlinstruct.bench/1",
        "id": backbone,
        "status": "ok",
        "comparisons": [
            {
                "answer_tokens": one.workload.answer_tokens,
                "batch": one.workload.batch,
                "acceptance": one.workload.acceptance,
                "seconds": {timing.arm: list(timing.seconds) for timing in one.timings},
                "median_ratio_to_transformers_plain": {arm: one.ratio(arm, ARMS[0]) for arm in ARMS},
            }
            for one in compared
        ],
    }


def as_table(compared: Sequence[Comparison]) -> str:
    """Returns one block of lines per workload: median, quartiles, and the ratio to transformers' plain answer."""
    return "\n\n".join("\n".join(_block(one)) for one in compared)


def _block(one: Comparison) -> list[str]:
    load = one.workload
    head = f"batch {load.batch}, answers of {load.answer_tokens} tokens, {100 * load.acceptance:.0f} % of drafts right"
    lines = [f"{head:52} {'median':>10} {'quartiles':>17}  ratio"]
    for timing in one.timings:
        low, high = timing.quartiles_s
        spread = f"{1e3 * low:.1f} to {1e3 * high:.1f}"
        ratio = one.ratio(timing.arm, ARMS[0])
        lines.append(f"  {timing.arm:50} {1e3 * timing.median_s:7.1f} ms {spread:>17} {ratio:6.2f}")
    return lines
