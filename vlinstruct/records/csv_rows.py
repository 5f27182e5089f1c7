"""Reads the rows of a CSV table: a bad one bears its problem, and the rest is read.

A row is at most as long as a JSON line may be, over all lines that its quoted cells run over.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from vlinstruct.errors import DataError
from vlinstruct.records.lines import BOM, MAX_LINE_BYTES, UserRecord

_CSV_REASONS = (  # by what Python's csv module says
    ("unexpected end", "a quote is not closed"),
    ("limit", "a cell is too long, or its quote is not closed"),
    ("expected after", "a quoted cell goes on after its quote"),
    ("new-line", "a carriage return stands alone"),
)


@dataclass(frozen=True, kw_only=True)
class CsvRow:
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
            raise UserRecord.error_at(
                place, why, code="bad_csv", advice="Quote cells that hold a comma, or in .tsv a tab"
            )
        return {column: cell for column, cell in zip(columns, self.cells, strict=True) if cell}


def csv_rows(stream: BinaryIO, file: str) -> Iterator[CsvRow]:
    """Yields the rows that are not blank, the header first; one that cannot be read bears its problem.

    Args:
        stream: the file, at its beginning.
        file: its name; of `.tsv` tabs stand between the cells.
    """
    lines = _DecodedLines(stream)
    reader = csv.reader(lines, strict=True, delimiter="\t" if file.lower().endswith(".tsv") else ",")
    while True:
        lines.row_bytes, line = 0, lines.number + 1
        try:
            cells = next(reader, None)
        except (csv.Error, UnicodeDecodeError) as error:
            yield CsvRow(line=line, problem=_explain_csv(error, f"{file} line {line}"))
            continue
        if cells is None:
            return
        if any(cells):
            yield CsvRow(line=line, cells=cells)


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
