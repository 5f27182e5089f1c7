"""The ten zero-shot benchmarks of the paper (section 4), a file each, from their authors' files or the hub's tables.

A folder holds one folder per benchmark, under its name: `DIR/textvqa/TextVQA_0.5.1_val.json` and so on. One that holds
tables of one benchmark alone, as a download from the hub, may be named itself. What it does not hold, or all where none
is named, is looked for in the hub's cache.

An eleventh benchmark is a file that defines BENCHMARK, and its name here. `mini`, whose tasks this package draws, is no
such file: its items have no annotations, and are asked in three kinds of words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from vlinstruct.evaluation.benchmark import Benchmark
from vlinstruct.evaluation.reading.hub_cache import cached_copy
from vlinstruct.evaluation.reading.hub_files import has_tables

# In the paper's order, which is the table's, whatever order they were named in.
_NAMES = (
    "flickr30k",
    "nocaps",
    "vsr",
    "gqa",
    "iconqa",
    "vizwiz",
    "textvqa",
    "visdial",
    "scienceqa",
    "hatefulmemes",
)
BENCHMARKS: Mapping[str, Benchmark] = {name: import_module(f"{__name__}.{name}").BENCHMARK for name in _NAMES}


def folder_of(
    benchmark: Benchmark, data: Path | None, *, notify: Callable[[str], None] = lambda notice: None
) -> Path | None:
    """Returns the folder of a benchmark; None where no `data` is named, and the hub's cache has no copy either.

    Args:
        benchmark: whose.
        data: its parent, or itself where that holds tables alone.
        notify: is told of a copy in the cache.
    """
    folder = None
    if data is not None:
        has_folders = any((data / name).is_dir() for name in BENCHMARKS)
        folder = data if not has_folders and has_tables(data) else data / benchmark.task.name
        if folder.is_dir():
            return folder
    cached = cached_copy(() if benchmark.copy is None else benchmark.copy.hub_ids)
    if cached is None:
        return folder
    hub_id, copy = cached
    notify(f"{benchmark.task.name}: read from {hub_id} in the hub's cache")
    return copy
