"""Finds the records of training data where they lie: JSON lines, one JSON list, a CSV table, an image folder.

An image folder is Hugging Face's `imagefolder`: pictures beside metadata.jsonl or metadata.csv.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BufferedReader

from vlinstruct.errors import DataError
from vlinstruct.files import PathLike, open_regular
from vlinstruct.records.lines import (
    BOM,
    as_object,
    bad_record,
    numbered_lines,
    parse_record,
    parse_strictly,
    require_text,
)
from vlinstruct.training.data.csv_rows import columns_of, csv_rows

METADATA_FILES = ("metadata.jsonl", "metadata.csv")
_HEAD_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """One record, parsed when its fields are asked for.

    Args:
        file: where it stands.
        label: what it is called there, e.g. `line 7`.
        is_metadata: it is an image folder's or another table's.
        fields: returns its fields, or raises a DataError.
    """

    file: str
    label: str
    is_metadata: bool
    fields: Callable[[], dict[str, object]]

    @property
    def place(self) -> str:
        """What messages call it."""
        return f"{self.file} {self.label}"


def data_file(path: PathLike) -> str:
    """Returns the file that holds the records: the path itself, or a folder's metadata.

    Raises:
        DataError: a folder without metadata.
    """
    name = os.fspath(path)
    return metadata_file(name) if os.path.isdir(name) else name


def metadata_file(folder: str) -> str:
    """Returns the path of a folder's metadata.

    Raises:
        DataError: it has none (`nothing_to_do`), or two.
    """
    paths = [path for name in METADATA_FILES if os.path.lexists(path := os.path.join(folder, name))]
    if not paths:
        why = f"nothing to do, the folder holds neither {METADATA_FILES[0]} nor {METADATA_FILES[1]}"
        advice = "Name one that does, or a file of JSON lines"
        raise DataError.at("cannot read data", folder, why, advice, code="nothing_to_do")
    if len(paths) > 1:
        why = f"the folder holds {METADATA_FILES[0]} and {METADATA_FILES[1]}"
        raise DataError.at("cannot read data", folder, why, "Name one of them", code="two_metadata_files")
    return paths[0]


def is_metadata(name: str) -> bool:
    """Says whether a file is an image folder's metadata, or another table.

    >>> is_metadata("cats/metadata.jsonl"), is_metadata("vqa.CSV"), is_metadata("vqa.jsonl")
    (True, True, False)
    """
    return os.path.basename(name) in METADATA_FILES or name.lower().endswith(".csv")


def training_records(file: str) -> Iterator[TrainingRecord]:
    """Yields every record of a file, also those that cannot be used.

    Raises:
        DataError: the file cannot be read, or has no record (`nothing_to_do`).
    """
    num_records = 0
    for record in _records(file):
        num_records += 1
        yield record
    if not num_records:
        raise _refuse_file(file, "nothing_to_do", "nothing to do, it has no records", "Check the file")


def _records(file: str) -> Iterator[TrainingRecord]:
    with open_regular(file, kind="data") as stream:
        start = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]
        require_text(start, file, action="cannot read data")
        if file.lower().endswith(".csv"):
            yield from _table_records(stream, file)
        elif start.removeprefix(BOM).lstrip().startswith(b"["):
            yield from _list_records(stream, file)
        else:
            yield from _line_records(stream, file)


def _refuse_file(file: str, code: str, why: str, advice: str) -> DataError:
    return DataError.at("cannot read data", file, why, advice, code=code)


def _line_records(stream: BufferedReader, file: str) -> Iterator[TrainingRecord]:
    for number, line in numbered_lines(stream):
        fields = partial(parse_record, line, f"{file} line {number}")
        yield TrainingRecord(file=file, label=f"line {number}", is_metadata=is_metadata(file), fields=fields)


def _table_records(stream: BufferedReader, file: str) -> Iterator[TrainingRecord]:
    rows = csv_rows(stream, file)
    header = next(rows, None)
    if header is None:
        return
    columns = columns_of(header, file)
    if not {"file_name", "image"} & set(columns):
        why = "its first line has no column 'file_name'"
        raise _refuse_file(file, "bad_csv", why, "Name the columns there, separated by commas")
    for row in rows:
        fields = partial(row.fields, columns, f"{file} line {row.line}")
        yield TrainingRecord(file=file, label=f"line {row.line}", is_metadata=True, fields=fields)


def _list_records(stream: BufferedReader, file: str) -> Iterator[TrainingRecord]:
    records = _parsed_list(stream.read().removeprefix(BOM), file)
    for number, record in enumerate(records, start=1):
        fields = partial(as_object, record, f"{file} record {number}")
        yield TrainingRecord(file=file, label=f"record {number}", is_metadata=is_metadata(file), fields=fields)


def _parsed_list(content: bytes, file: str) -> list[object]:
    try:
        records = parse_strictly(content, file)
    except DataError as error:
        cause = error.__cause__
        if not isinstance(cause, json.JSONDecodeError):
            raise
        why = f"not valid JSON at column {cause.colno} ({cause.msg.removesuffix(':')})"
        raise bad_record(f"{file} line {cause.lineno}", "bad_json", why) from cause
    assert isinstance(records, list)
    return records
