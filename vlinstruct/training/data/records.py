"""Finds the records of training data where they lie: JSON lines, one JSON list, a CSV table, an image folder.

An image folder is Hugging Face's `imagefolder`: pictures beside metadata.jsonl or metadata.csv. A record is parsed when
it is read, not when it is found, so that a bad one is counted and the others are still looked at. A row of a table is
at most as long as a JSON line may be, over all lines that its quoted cells run over.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from typing import BinaryIO

from vlinstruct.errors import DataError, shortened
from vlinstruct.files import PathLike, open_regular
from vlinstruct.records.foreign import as_object, parse_document
from vlinstruct.records.lines import BOM, MAX_LINE_BYTES, UserRecord, numbered_lines, parse_record, require_text

METADATA_FILES = ("metadata.jsonl", "metadata.csv")
_HEAD_BYTES = 64
_CSV_REASONS = (  # by what Python's csv module says
    ("unexpected end", "a quote is not closed"),
    ("limit", "a cell is too long, or its quote is not closed"),
    ("expected after", "a quoted cell goes on after its quote"),
    ("new-line", "a carriage return stands alone"),
)


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """One record, not parsed yet.

    Args:
        file: where it stands.
        label: what it is called there, e.g. `line 7`.
        is_metadata: it is an image folder's or another table's.
        parse: returns its fields, or raises a DataError.
    """

    file: str
    label: str
    is_metadata: bool
    parse: Callable[[], dict[str, object]]

    def read(self) -> UserRecord:
        """Returns the record's fields.

        Raises:
            DataError: it cannot be parsed.
        """
        return UserRecord(file=self.file, label=self.label, fields=self.parse())


def data_file(path: PathLike) -> str:
    """Returns the file that holds the records: the path itself, or a folder's metadata.

    Raises:
        DataError: a folder without metadata (`nothing_to_do`), or with two files of it.
    """
    folder = os.fspath(path)
    if not os.path.isdir(folder):
        return folder
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
        parse = partial(parse_record, line, f"{file} line {number}")
        yield TrainingRecord(file=file, label=f"line {number}", is_metadata=is_metadata(file), parse=parse)


def _list_records(stream: BufferedReader, file: str) -> Iterator[TrainingRecord]:
    def refuse(cause: json.JSONDecodeError, words: str) -> DataError:
        why = f"not valid JSON at column {cause.colno} ({words})"
        return UserRecord.error_at(f"{file} line {cause.lineno}", why, code="bad_json")

    records = parse_document(stream.read().removeprefix(BOM), file, refuse)
    assert isinstance(records, list)
    for number, record in enumerate(records, start=1):
        parse = partial(as_object, record, f"{file} record {number}")
        yield TrainingRecord(file=file, label=f"record {number}", is_metadata=is_metadata(file), parse=parse)


def _table_records(stream: BufferedReader, file: str) -> Iterator[TrainingRecord]:
    rows = _csv_rows(stream, file)
    header = next(rows, None)
    if header is None:
        return
    if header.problem is not None:
        raise header.problem
    columns = [cell.strip() for cell in header.cells]
    if repeated := [column for column in columns if column and columns.count(column) > 1]:
        why = f"column '{shortened(repeated[0], 40)}' is given twice"
        raise _refuse_file(file, "bad_csv", why, "Rename one")
    if not {"file_name", "image"} & set(columns):
        why = "its first line has no column 'file_name'"
        raise _refuse_file(file, "bad_csv", why, "Name the columns there, separated by commas")
    for row in rows:
        parse = partial(row.fields, columns, f"{file} line {row.line}")
        yield TrainingRecord(file=file, label=f"line {row.line}", is_metadata=True, parse=parse)


@dataclass(frozen=True, kw_only=True)
class _CsvRow:
    """One row of a table.

    Args:
        line: the number of its first line, from 1.
        cells: its texts.
        problem: why it cannot be read, where it cannot.
    """

    line: int
    cells: Sequence[str] = ()
    problem: DataError | None = None

    def fields(self, columns: Sequence[str], place: str) -> dict[str, object]:
        """Returns the cells by column; an empty one is a field that is not there.

        Raises:
            DataError: the row cannot be read, or has more or fewer cells than the header.
        """
        if self.problem is not None:
            raise self.problem
        if len(self.cells) != len(columns):
            why = f"it has {len(self.cells)} cells, the header has {len(columns)}"
            raise UserRecord.error_at(place, why, code="bad_csv", advice="Quote cells that hold a comma")
        return {column: cell for column, cell in zip(columns, self.cells, strict=True) if cell}


def _csv_rows(stream: BinaryIO, file: str) -> Iterator[_CsvRow]:
    """Yields the rows that are not blank, the header first; one that cannot be read bears its problem."""
    lines = _DecodedLines(stream)
    reader = csv.reader(lines, strict=True)
    while True:
        lines.row_bytes, line = 0, lines.number + 1
        try:
            cells = next(reader, None)
        except (csv.Error, UnicodeDecodeError) as error:
            yield _CsvRow(line=line, problem=_explain_csv(error, f"{file} line {line}"))
            continue
        if cells is None:
            return
        if any(cells):
            yield _CsvRow(line=line, cells=cells)


class _DecodedLines:
    """Gives the csv reader a stream's lines as text, and counts their bytes since a row began.

    A class and no generator: an error that a generator raises ends it, and the rows behind a bad one would be lost.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.number = 0
        self.row_bytes = 0

    def __iter__(self) -> _DecodedLines:
        return self

    def __next__(self) -> str:
        line = rest = self._stream.readline(MAX_LINE_BYTES + 1)
        if not line:
            raise StopIteration
        while not rest.endswith(b"\n") and (rest := self._stream.readline(65_536)):
            pass
        self.number += 1
        self.row_bytes += len(line)
        if self.row_bytes > MAX_LINE_BYTES:
            raise _RowTooLong
        return line.removeprefix(BOM if self.number == 1 else b"").decode("utf-8")


class _RowTooLong(csv.Error):
    pass


def _explain_csv(error: csv.Error | UnicodeDecodeError, place: str) -> DataError:
    problem = UserRecord.error_at
    if isinstance(error, _RowTooLong):
        return problem(place, f"more than {MAX_LINE_BYTES:,} bytes", code="line_too_long", advice="Shorten the line")
    if isinstance(error, UnicodeDecodeError):
        return problem(place, "it is not UTF-8", code="encoding", advice="Save the file as UTF-8")
    why = next((why for words, why in _CSV_REASONS if words in str(error)), "not valid CSV")
    return problem(place, why, code="bad_csv")
