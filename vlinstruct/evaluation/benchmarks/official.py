"""The ten zero-shot benchmarks of the paper (section 4), read from the files that their authors publish.

A folder holds one folder per benchmark, under its name: `DIR/textvqa/TextVQA_0.5.1_val.json` and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from vlinstruct.data.text import error_line
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
from vlinstruct.evaluation.checking import require_files
from vlinstruct.evaluation.item import Item

_MODULES = (flickr30k, nocaps, vsr, gqa, iconqa, vizwiz, textvqa, visdial, scienceqa, hatefulmemes)
BENCHMARKS: Mapping[str, Benchmark] = {module.BENCHMARK.task.name: module.BENCHMARK for module in _MODULES}


def read_items(benchmark: Benchmark, folder: Path, *, limit: int | None = None) -> list[Item]:
    """Reads a benchmark's items.

    Args:
        benchmark: one of BENCHMARKS.
        folder: where its files are.
        limit: take the first so many; None takes all.

    Raises:
        DataError: a file is missing or cannot be used, or holds no item of the part.
        TextError: a record's text is none that a model can be asked.
    """
    require_files(benchmark, folder)
    items = list(islice(benchmark.read(folder), limit))
    if not items:
        why = f"its files hold no item of the part {benchmark.part}, no score can be computed"
        advice = "Compare them with `vlinstruct evaluate --list`"
        raise DataError(error_line(f"cannot read {benchmark.task.name}", folder, why, advice), code="nothing_to_do")
    return items
