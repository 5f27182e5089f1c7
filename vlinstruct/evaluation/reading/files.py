"""From a benchmark's folder to its items, and what is wrong with its files before anything is computed.

The authors' files come first: where they are all there, tables of the hub's beside them are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from vlinstruct.errors import DataError, ImageError, InputError
from vlinstruct.evaluation.benchmark import Benchmark, Item
from vlinstruct.evaluation.reading.hub_files import has_tables
from vlinstruct.evaluation.reading.hub_tables import StoredPicture
from vlinstruct.evaluation.reading.items import LeftOut, PictureFile
from vlinstruct.media.images import DEFAULT_LIMITS, ImageLimits

# The headers of a few pictures tell a wrong or half unpacked archive; nobody waits for those of all.
_HEADERS_READ = 8


@dataclass(kw_only=True)
class FilesReport:
    """What is in a benchmark's folder.

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


def read_items(benchmark: Benchmark, folder: Path, *, limit: int | None = None) -> list[Item]:
    """Reads a benchmark's items, from its authors' files or from a copy of the hub's.

    Args:
        benchmark: what is read.
        folder: where its files are.
        limit: take the first so many; None takes all.

    Raises:
        DataError: a file is missing (the first one is named) or cannot be used, or holds no item of the part.
        TextError: a record's text is none that a model can be asked.
        ResourceError: the library that reads the hub's tables is not installed.
    """
    if not _uses_copy(benchmark, folder):
        for name in _missing_files(benchmark, folder):
            raise _missing(benchmark, folder, name)
    items = list(islice(_read(benchmark, folder), limit))
    if not items:
        why = f"its files hold no item of the part {benchmark.part}, no score can be computed"
        advice = "Compare them with `vlinstruct evaluate --list`"
        raise DataError.at(f"cannot read {benchmark.task.name}", folder, why, advice, code="nothing_to_do")
    return items


def ignores_tables(benchmark: Benchmark, folder: Path) -> bool:
    """Returns whether a folder holds tables that are not read, since its authors' files are there, too."""
    return not _missing_files(benchmark, folder) and has_tables(folder)


def check(
    benchmark: Benchmark, folder: Path, *, decode: bool = False, limits: ImageLimits = DEFAULT_LIMITS
) -> FilesReport:
    """Looks for a benchmark's files, reads its annotations whole, and looks for every picture.

    The headers of the first few pictures are read. The first record that cannot be used ends the reading.

    Args:
        benchmark: what is looked for.
        folder: where its files should be.
        decode: read every picture whole, in place of some headers.
        limits: how large a picture may be, and how whole it must be.
    """
    report = FilesReport(name=benchmark.task.name)
    missing = _missing_files(benchmark, folder)
    if missing and _uses_copy(benchmark, folder):
        missing = []
    report.problems += [_missing(benchmark, folder, name).message for name in missing]
    if any(not name.endswith("/") for name in missing):
        return report
    try:
        items = list(_read(benchmark, folder))
    except InputError as error:
        report.problems.append(error.message)
        return report
    pictures = list(
        dict.fromkeys(item.load_picture for item in items if isinstance(item.load_picture, PictureFile | StoredPicture))
    )
    report.num_items, report.num_pictures = len(items), len(pictures)
    left_out = [item.load_picture.error for item in items if isinstance(item.load_picture, LeftOut)]
    if left_out:
        report.problems.append(f"{len(left_out):,} of {len(items):,} items cannot be used; the first: {left_out[0]}")
    # Without a single item and with a file missing, the count would only say the same again.
    if (items or not missing) and len(items) != benchmark.num_items:
        why = f"{len(items):,} items of the part {benchmark.part}, {benchmark.num_items:,} are expected"
        advice = "Compare the files with `vlinstruct evaluate --list`"
        report.problems.append(DataError.at(f"cannot compare {benchmark.task.name}", folder, why, advice).message)
    if not missing:
        try:
            limited = [replace(picture, limits=limits) for picture in pictures]
            report.problems += _picture_problems(benchmark, limited, decode=decode)
        except DataError as error:  # a table is damaged where its pictures are
            report.problems.append(error.message)
    return report


def _uses_copy(benchmark: Benchmark, folder: Path) -> bool:
    """Returns whether tables from the hub are read: where they are, and the authors' files are not all there."""
    return benchmark.copy is not None and bool(_missing_files(benchmark, folder)) and has_tables(folder)


def _read(benchmark: Benchmark, folder: Path) -> Iterator[Item]:
    if benchmark.copy is not None and _uses_copy(benchmark, folder):
        return benchmark.copy.read(folder)
    return benchmark.read(folder)


def _missing_files(benchmark: Benchmark, folder: Path) -> Sequence[str]:
    """Returns which paths are not there, of the form of the benchmark that is nearest to be complete."""

    def is_there(name: str) -> bool:
        return (folder / name).is_dir() if name.endswith("/") else (folder / name).exists()

    return min(([name for name in form if not is_there(name)] for form in benchmark.forms), key=len)


def _missing(benchmark: Benchmark, folder: Path, name: str) -> DataError:
    kind = "folder" if name.endswith("/") else "file"
    what: Mapping[str, str] = {key: value for form in benchmark.forms for key, value in form.items()}
    why = f"no such {kind}; it should hold {what[name]}"
    advice = f"Get it from {benchmark.source}"
    return DataError.at(f"cannot read {benchmark.task.name}", folder / name, why, advice, code="data_missing")


def _picture_problems(
    benchmark: Benchmark, pictures: Sequence[PictureFile | StoredPicture], *, decode: bool
) -> Iterator[str]:
    """Yields a line for all missing pictures together, and one for each of those looked at that cannot be read."""
    missing = [picture for picture in pictures if not picture.is_there()]
    if missing:
        why = f"no such picture; {len(missing):,} of {len(pictures):,} are missing"
        advice = f"Get them from {benchmark.source}"
        yield DataError.at(f"cannot read {benchmark.task.name}", missing[0].place, why, advice).message
    for picture in pictures if decode else pictures[:_HEADERS_READ]:
        if picture.is_there():
            try:
                if decode:
                    picture()
                else:
                    picture.check()
            except ImageError as error:
                yield error.message
