"""The ten zero-shot benchmarks of the paper (section 4), a file each, from their authors' files or the hub's tables.

A folder holds one folder per benchmark, under its name: `DIR/textvqa/TextVQA_0.5.1_val.json` and so on. One that holds
tables of one benchmark alone, as a download from the hub, may be named itself.

An eleventh benchmark is a file that defines BENCHMARK, and its name here. `mini`, whose tasks this package draws, is no
such file: its items have no annotations, and are asked in three kinds of words.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from vlinstruct.evaluation.benchmark import Benchmark
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


def folder_of(benchmark: Benchmark, data: Path) -> Path:
    """Returns the folder of a benchmark: the one of its name, or `data` itself where that holds tables alone."""
    has_folders = any((data / name).is_dir() for name in BENCHMARKS)
    return data if not has_folders and has_tables(data) else data / benchmark.task.name
