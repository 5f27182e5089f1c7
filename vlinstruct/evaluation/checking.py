"""Says what is wrong with the files of an official benchmark before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vlinstruct.data.image_header import check_image_header
from vlinstruct.data.text import error_line
from vlinstruct.errors import DataError, ImageError, InputError
from vlinstruct.evaluation.benchmark import Benchmark
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
    found.problems += [_missing(benchmark, folder, name).message for name in missing]
    if any(not name.endswith("/") for name in missing):
        return found
    try:
        items = list(benchmark.read(folder))
    except InputError as error:
        found.problems.append(error.message)
        return found
    pictures = list(dict.fromkeys(item.draw.path for item in items if isinstance(item.draw, Picture)))
    found.num_items, found.num_pictures = len(items), len(pictures)
    if items or not missing:
        found.problems += _count_problems(benchmark, folder, items)
    if not missing:
        found.problems += _picture_problems(benchmark, pictures)
    return found


def require_files(benchmark: Benchmark, folder: Path) -> None:
    """Refuses a folder that lacks a file.

    Raises:
        DataError: names the first one that is missing and where people get it.
    """
    for name in missing_files(benchmark, folder):
        raise _missing(benchmark, folder, name)


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
    return DataError(error_line(f"cannot read {benchmark.task.name}", folder / name, why, advice), code="data_missing")


def _count_problems(benchmark: Benchmark, folder: Path, items: Sequence[Item]) -> Iterator[str]:
    if len(items) != benchmark.num_items:
        why = f"{len(items):,} items of the part {benchmark.part}, {benchmark.num_items:,} are expected"
        advice = "Compare the files with `vlinstruct evaluate --list`"
        yield error_line(f"cannot compare {benchmark.task.name}", folder, why, advice)


def _picture_problems(benchmark: Benchmark, pictures: Sequence[Path]) -> Iterator[str]:
    absent = [path for path in pictures if not path.is_file()]
    if absent:
        why = f"no such picture; {len(absent):,} of {len(pictures):,} are missing"
        advice = f"Get them from {benchmark.source}"
        yield error_line(f"cannot read {benchmark.task.name}", absent[0], why, advice)
    for path in pictures[:_HEADERS_READ]:
        if path.is_file():
            try:
                check_image_header(path)
            except ImageError as error:
                yield error.message
