"""Reads what IconQA and ScienceQA share: problems by number in one file, the numbers of every part in another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlinstruct.evaluation.benchmarks.annotations import read_object
from vlinstruct.evaluation.benchmarks.record import Record

PROBLEMS_FILE, SPLITS_FILE = "problems.json", "pid_splits.json"


def read_problems(folder: Path, part: str) -> Iterator[tuple[str, Record]]:
    """Yields the problems of a part with their numbers, in the part's order.

    Args:
        folder: where the two files are.
        part: a name in `pid_splits.json`.

    Raises:
        DataError: a file cannot be used, or a problem of the part is missing.
    """
    names = read_object(folder / SPLITS_FILE).texts(part)
    problems = read_object(folder / PROBLEMS_FILE)
    for name in names:
        yield name, problems.entry(name, "problem")
