"""The official benchmarks as a list for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from vlinstruct.evaluation.benchmark import Benchmark


def as_records(benchmarks: Iterable[Benchmark]) -> Iterator[dict[str, Any]]:
    """Yields a record for each benchmark."""
    for one in benchmarks:
        yield {
            "schema": "vlinstruct.benchmark/1",
            "id": one.task.name,
            "status": "ok",
            "part": one.part,
            "items": one.num_items,
            "metric": one.task.metric,
            "mode": mode(one),
            "instruction": one.instruction,
            "source": one.source,
            "licence": one.licence,
            "files": [dict(form) for form in one.forms],
            "hub": one.hub,
            "hub_columns": None if one.copy is None else list(one.copy.columns),
            "example": one.example,
            "generation": None if one.task.is_ranked else asdict(one.generation),
            "generation_source": one.generation_source,
        }


def as_lines(benchmarks: Iterable[Benchmark]) -> Iterator[str]:
    """Yields five lines for each benchmark: what it is, its licence, its source, its files, copies on the hub."""
    for one in benchmarks:
        yield f"{one.task.name:13} {one.num_items:>6,} items  {one.task.metric:16} {mode(one):9} {one.part}"
        yield f"  licence     {one.licence}"
        yield f"  source      {one.source}"
        yield f"  files       {' or: '.join(', '.join(form) for form in one.forms)}"
        yield f"  hub         {one.hub}"


MINI_LINE = "mini, and its tasks mini/flickr30k to mini/hatefulmemes: drawn by this package, nothing to download"


def mode(benchmark: Benchmark) -> str:
    """Returns how answers come about."""
    return "rank" if benchmark.task.is_ranked else "generate"
