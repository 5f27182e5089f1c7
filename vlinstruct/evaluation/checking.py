"""Says what is wrong with the files of an official benchmark before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vlinstruct.errors import DataError, ImageError, InputError
from vlinstruct.evaluation.benchmark import Benchmark
from vlinstruct.evaluation.benchmarks.hub_files import has_tables
from vlinstruct.evaluation.benchmarks.hub_table import StoredPicture
from vlinstruct.evaluation.benchmarks.picture import Picture
from vlinstruct.evaluation.item import Item

_HEADERS_READ = 8


@dataclass(kw_only=True)
class Checked:
    """What was found in a benchmark's folder.

    Args:
        name: the benchmark's.
        num_items: how many items its part has there.
        num_pictures: how many pictures these name.
        problems: what is wrong, a line each.
    """

    name: str
    num_items: int = 0
    num_pictures: int = 0
    problems: list[str] = field(default_factory=list)


def check(benchmark: Benchmark, folder: Path) -> Checked:
    """Looks for a benchmark's files, reads its annotations whole, and looks for every picture.

    The headers of the first few pictures are read. The first record that cannot be used ends the reading.

    Args:
        benchmark: what is looked for.
        folder: where its files should be.
    """
    found = Checked(name=benchmark.task.name)
    missing = missing_files(benchmark, folder)
    if missing and uses_copy(benchmark, folder):
        missing = []
    found.problems += [_missing(benchmark, folder, name).message for name in missing]
    if any(not name.endswith("/") for name in missing):
        return found
    try:
        items = list(read(benchmark, folder))
    except InputError as error:
        found.problems.append(error.message)
        return found
    pictures = list(dict.fromkeys(item.draw for item in items if isinstance(item.draw, Picture | StoredPicture)))
    found.num_items, found.num_pictures = len(items), len(pictures)
    if items or not missing:
        found.problems += _count_problems(benchmark, folder, items)
    if not missing:
        try:
            found.problems += _picture_problems(benchmark, pictures)
        except DataError as error:  # a table is damaged where its pictures are
            found.problems.append(error.message)
    return found


def require_files(benchmark: Benchmark, folder: Path) -> None:
    """Refuses a folder that lacks a file and holds no copy of the hub's.

    Raises:
        DataError: names the first one that is missing and where people get it.
    """
    for name in () if uses_copy(benchmark, folder) else missing_files(benchmark, folder):
        raise _missing(benchmark, folder, name)


def uses_copy(benchmark: Benchmark, folder: Path) -> bool:
    """Returns whether tables from the hub are read: where they are, and the authors' files are not all there."""
    return benchmark.copy is not None and bool(missing_files(benchmark, folder)) and has_tables(folder)


def read(benchmark: Benchmark, folder: Path) -> Iterator[Item]:
    """Yields a benchmark's items, from its authors' files or from a copy of the hub's.

    Raises:
        DataError: the annotations cannot be used.
        ResourceError: the library that reads tables is not installed.
    """
    if benchmark.copy is not None and uses_copy(benchmark, folder):
        return benchmark.copy.read(folder)
    return benchmark.read(folder)


def missing_files(benchmark: Benchmark, folder: Path) -> Sequence[str]:
    """Returns which paths are not there, of the form of the benchmark that is nearest to be complete."""
    return min(([name for name in form if not _is_there(folder, name)] for form in benchmark.forms), key=len)


def _is_there(folder: Path, name: str) -> bool:
    path = folder / name
    return path.is_dir() if name.endswith("/") else path.exists()


def _missing(benchmark: Benchmark, folder: Path, name: str) -> DataError:
    kind = "folder" if name.endswith("/") else "file"
    what: Mapping[str, str] = {key: value for form in benchmark.forms for key, value in form.items()}
    why = f"no such {kind}; it should hold {what[name]}"
    advice = f"Get it from {benchmark.source}"
    return DataError.at(f"cannot read {benchmark.task.name}", folder / name, why, advice, code="data_missing")


def _count_problems(benchmark: Benchmark, folder: Path, items: Sequence[Item]) -> Iterator[str]:
    if len(items) != benchmark.num_items:
        why = f"{len(items):,} items of the part {benchmark.part}, {benchmark.num_items:,} are expected"
        advice = "Compare the files with `vlinstruct evaluate --list`"
        yield DataError.at(f"cannot compare {benchmark.task.name}", folder, why, advice).message


def _picture_problems(benchmark: Benchmark, pictures: Sequence[Picture | StoredPicture]) -> Iterator[str]:
    absent = [picture for picture in pictures if not picture.is_there()]
    if absent:
        why = f"no such picture; {len(absent):,} of {len(pictures):,} are missing"
        advice = f"Get them from {benchmark.source}"
        yield DataError.at(f"cannot read {benchmark.task.name}", absent[0].place, why, advice).message
    for picture in pictures[:_HEADERS_READ]:
        if picture.is_there():
            try:
                picture.check()
            except ImageError as error:
                yield error.message
