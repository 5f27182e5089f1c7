"""Rows of a CSV table as people and spreadsheets write them: numbered, bounded, strict, bad ones by themselves.

A row is at most as long as a JSON line may be, over all lines that its quoted cells run over.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from vlinstruct.errors import DataError, shortened
from vlinstruct.records.lines import BOM, MAX_LINE_BYTES, bad_record

_REASONS = (
    ("unexpected end", "a quote is not closed"),
    ("limit", "a cell is too long, or its quote is not closed"),
    ("expected after", "a quoted cell goes on after its quote"),
    ("new-line", "a carriage return stands alone"),
)


@dataclass(frozen=True, kw_only=True)
class CsvRow:
    """One row.

    Args:
        line: the number of its first line, from 1.
        cells: its texts.
        problem: why it cannot be read, where it cannot.
    """

    line: int
    cells: Sequence[str] = ()
    problem: DataError | None = None

    def fields(self, columns: Sequence[str], place: str) -> dict[str, object]:
        """Returns the cells by column; an empty one is a field that is not given.

        Raises:
            DataError: the row cannot be read, or has other cells than the header.
        """
        if self.problem is not None:
            raise self.problem
        if len(self.cells) != len(columns):
            why = f"it has {len(self.cells)} cells, the header has {len(columns)}"
            raise bad_record(place, "bad_csv", why, "Quote cells that hold a comma")
        return {column: cell for column, cell in zip(columns, self.cells, strict=True) if cell}


def csv_rows(stream: BinaryIO, name: str) -> Iterator[CsvRow]:
    """Yields the rows that are not blank, the header first.

    Args:
        stream: the table, UTF-8 with or without a byte order mark.
        name: the file, for messages.
    """
    lines = _Lines(stream)
    reader = csv.reader(lines, strict=True)
    while True:
        lines.row_bytes, line = 0, lines.number + 1
        try:
            cells = next(reader, None)
        except (csv.Error, UnicodeDecodeError) as error:
            yield CsvRow(line=line, problem=_explain(error, f"{name} line {line}"))
            continue
        if cells is None:
            return
        if any(cells):
            yield CsvRow(line=line, cells=cells)


def columns_of(header: CsvRow, name: str) -> Sequence[str]:
    """Returns the names that the first row gives to the columns.

    Raises:
        DataError: it cannot be read, or gives a name twice.
    """
    if header.problem is not None:
        raise header.problem
    columns = [cell.strip() for cell in header.cells]
    if repeated := [column for column in columns if column and columns.count(column) > 1]:
        why = f"column '{shortened(repeated[0], 40)}' is given twice"
        raise DataError.at("cannot read data", name, why, "Rename one", code="bad_csv")
    return columns


class _Lines:
    """Decodes lines for the reader; an error of one does not end the others, as it would end a generator."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.number = 0
        self.row_bytes = 0

    def __iter__(self) -> _Lines:
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


def _explain(error: csv.Error | UnicodeDecodeError, place: str) -> DataError:
    if isinstance(error, _RowTooLong):
        return bad_record(place, "line_too_long", f"more than {MAX_LINE_BYTES:,} bytes", "Shorten the line")
    if isinstance(error, UnicodeDecodeError):
        return bad_record(place, "encoding", "it is not UTF-8", "Save the file as UTF-8")
    text = str(error)
    return bad_record(place, "bad_csv", next((why for sign, why in _REASONS if sign in text), "not valid CSV"))
