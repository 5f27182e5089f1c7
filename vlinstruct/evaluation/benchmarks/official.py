"""The ten zero-shot benchmarks of the paper (section 4), read from their authors' files or from copies of the hub's.

A folder holds one folder per benchmark, under its name: `DIR/textvqa/TextVQA_0.5.1_val.json` and so on. One that holds
tables of one benchmark alone, as a download from the hub, may be named itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from vlinstruct.errors import DataError
from vlinstruct.evaluation.benchmark import Benchmark
from vlinstruct.evaluation.benchmarks import (
    flickr30k,
    gqa,
    hatefulmemes,
    iconqa,
    nocaps,
    scienceqa,
    textvqa,
    visdial,
    vizwiz,
    vsr,
)
from vlinstruct.evaluation.benchmarks.hub_files import has_tables
from vlinstruct.evaluation.checking import missing_files, read, require_files
from vlinstruct.evaluation.item import Item

_MODULES = (flickr30k, nocaps, vsr, gqa, iconqa, vizwiz, textvqa, visdial, scienceqa, hatefulmemes)
BENCHMARKS: Mapping[str, Benchmark] = {module.BENCHMARK.task.name: module.BENCHMARK for module in _MODULES}


def folder_of(benchmark: Benchmark, data: Path) -> Path:
    """Returns the folder of a benchmark: the one of its name, or `data` itself where that holds tables alone."""
    has_folders = any((data / name).is_dir() for name in BENCHMARKS)
    return data if not has_folders and has_tables(data) else data / benchmark.task.name


def ignores_tables(benchmark: Benchmark, folder: Path) -> bool:
    """Returns whether a folder holds tables that are not read, since its authors' files are there, too."""
    return not missing_files(benchmark, folder) and has_tables(folder)


def without_tokens(benchmark: Benchmark) -> Benchmark:
    """Returns a benchmark that takes its files without OCR tokens, where it shows any."""
    return benchmark if benchmark.with_ocr is None else benchmark.with_ocr(lambda image, draw: ())


def read_items(benchmark: Benchmark, folder: Path, *, limit: int | None = None) -> list[Item]:
    """Reads a benchmark's items.

    Args:
        benchmark: one of BENCHMARKS.
        folder: where its files are.
        limit: take the first so many; None takes all.

    Raises:
        DataError: a file is missing or cannot be used, or holds no item of the part.
        TextError: a record's text is none that a model can be asked.
        ResourceError: the library that reads the hub's tables is not installed.
    """
    require_files(benchmark, folder)
    items = list(islice(read(benchmark, folder), limit))
    if not items:
        why = f"its files hold no item of the part {benchmark.part}, no score can be computed"
        advice = "Compare them with `vlinstruct evaluate --list`"
        raise DataError.at(f"cannot read {benchmark.task.name}", folder, why, advice, code="nothing_to_do")
    return items
