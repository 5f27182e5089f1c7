"""The ways to choose among an item's instructions, and what each gives: the columns of the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Column = Literal["plain", "plain, greedy", "rewritten", "lowest of pair", "AIO paper", "AIO safe", "always canonical"]
COLUMNS: tuple[Column, ...] = (
    "plain",
    "plain, greedy",
    "rewritten",
    "lowest of pair",
    "AIO paper",
    "AIO safe",
    "always canonical",
)

# What of an item's time each way needs; see `answering.Times`.
STAGES: Mapping[Column, tuple[str, ...]] = {
    "plain": ("see", "answer"),
    "plain, greedy": ("see", "greedy"),
    "rewritten": ("see", "rewrite", "answer"),
    "lowest of pair": ("see", "rewrite", "score", "answer"),
    "AIO paper": ("see", "rewrite", "score", "compare", "answer"),
    "AIO safe": ("see", "rewrite", "score", "compare", "answer"),
    "always canonical": ("see", "answer"),
}


def columns_of(records: Iterable[Mapping[str, Any]]) -> tuple[Column, ...]:
    """Returns the columns of a table; the greedy one where some answers were searched for with beams."""
    has_greedy = any("greedy" in record for record in records)
    return tuple(column for column in COLUMNS if has_greedy or column != "plain, greedy")


def chosen(record: Mapping[str, Any], column: Column) -> dict[str, Any]:
    """Returns the instruction that a way chooses, with its IAS and its answer.

    Args:
        record: the item's; under "always canonical" the one that was asked in canonical words.
        column: the way.
    """
    found: dict[str, Any] = record[_role(record, column)]
    return found


def _role(record: Mapping[str, Any], column: Column) -> str:
    if column == "plain, greedy":
        return "greedy" if "greedy" in record else "initial"
    if column in ("plain", "always canonical") or "rewritten" not in record:
        return "initial"
    if column == "lowest of pair":
        scores = {role: record[role]["ias"] for role in ("initial", "rewritten") if record[role]["ias"] is not None}
        return min(scores, key=lambda role: scores[role], default="initial")
    return {"rewritten": "rewritten", "AIO paper": "optimized"}.get(column, record["chosen"])
