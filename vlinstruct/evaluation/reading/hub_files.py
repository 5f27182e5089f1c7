"""Which files of a folder are a benchmark's part as Hugging Face's hub has it: parquet or Arrow tables in shards.

    data/validation-00000-of-00003.parquet    as `hf download lmms-lab-encoder/textvqa` leaves them
    default/validation/0000.parquet           as the hub itself converts them, revision refs/convert/parquet
    validation.parquet                        as `Dataset.to_parquet` writes it
    validation/data-00000-of-00001.arrow      as `DatasetDict.save_to_disk` writes it

What a file holds is said by its name or its folder's; one that says nothing is taken where none of the part is named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlinstruct.evaluation.reading.annotations import bad_annotation

_SUFFIXES = (".parquet", ".arrow")
# data/, default/validation/ and the like; a folder of pictures beside the tables is not searched to its last leaf.
_MAX_DEPTH = 3
_SPLITS = ("train", "validation", "val", "dev", "test", "testdev", "challenge", "submission")
_VALIDATION = ("validation", "val", "dev")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=[-.])")


def has_tables(folder: Path) -> bool:
    """Returns whether a folder holds any table, up to three folders deep."""
    return next(_tables(folder), None) is not None


def shards(folder: Path, split: str, *, config: str = "") -> list[Path]:
    """Returns the files of one part, in order.

    Args:
        folder: the benchmark's.
        split: the part's name on the hub; `validation`, `val` and `dev` are one.
        config: a word of the path by which the hub tells tables of a data set apart; where no path has it, it is
            left out of account.

    Raises:
        DataError: there is none, one is missing, or the part is there twice.
    """
    tables = sorted(_tables(folder))
    tables = [path for path in tables if config in path.relative_to(folder).as_posix()] or tables
    names = _VALIDATION if split in _VALIDATION else (split,)
    files = [path for path in tables if _split_of(path, folder) in names]
    files = files or [path for path in tables if _split_of(path, folder) is None]
    if not files:
        splits = ", ".join(sorted({str(_split_of(path, folder)) for path in tables})) or "none at all"
        raise bad_annotation(str(folder), f"no table of the part '{split}'; there is {splits}", code="data_missing")
    # Two downloads into one folder, or both of the hub's forms, would count every item twice.
    copies = sorted({(path.parent.relative_to(folder) / f"*{path.suffix}").as_posix() for path in files})
    if len(copies) > 1:
        why = f"the part is there twice, as {copies[0]} and {copies[1]}"
        raise bad_annotation(str(folder), why, code="part_twice")
    _require_all(files)
    return files


def _tables(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, followlinks=True):
        is_deepest = len(Path(parent).relative_to(folder).parts) >= _MAX_DEPTH
        folders[:] = [] if is_deepest else [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.endswith(_SUFFIXES) and not name.startswith("."):
                yield Path(parent, name)


def _split_of(path: Path, folder: Path) -> str | None:
    """Returns the first split that a file's name has as a word, or else its folder's."""
    inner = path.relative_to(folder)
    words = (word for part in (inner.name, inner.parent.name) for word in re.split(r"[-._]", part))
    return next((word for word in words if word in _SPLITS), None)


def _require_all(files: Sequence[Path]) -> None:
    """Refuses shards that do not make a whole, by the numbers in their names: an interrupted download leaves such."""
    numbers = {(int(match[1]), int(match[2])) for path in files if (match := _SHARD.search(path.name))}
    for count in {count for _, count in numbers}:
        missing = [number for number in range(count) if (number, count) not in numbers]
        if missing:
            why = f"the file {missing[0]:05}-of-{count:05} is missing; {len(missing)} of {count} are"
            raise bad_annotation(str(files[0].parent), why, code="data_missing")
