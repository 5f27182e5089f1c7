"""Reads the hub's copies of benchmarks, which are parquet and Arrow tables (`records/tables.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vlinstruct.evaluation.reading.annotations import Record, bad_annotation
from vlinstruct.evaluation.reading.hub_files import shards
from vlinstruct.evaluation.reading.items import LimitedPicture
from vlinstruct.media.images import read_image
from vlinstruct.records import tables
from vlinstruct.records.tables import Table, TablePicture, holds_pictures


@dataclass(frozen=True, kw_only=True)
class StoredPicture(TablePicture, LimitedPicture):
    """A picture in a table; called, it gives the picture."""

    def __call__(self) -> Image.Image:
        """Reads the picture.

        Raises:
            ImageError: it cannot be read.
            DataError: the table is damaged there.
        """
        return read_image(self.content(), name=self.place, limits=self.limits)

    def is_there(self) -> bool:
        """Returns whether the row holds any bytes of it."""
        return self.table.picture(self.column, self.row) is not None

    def check(self) -> None:
        """Refuses a picture that cannot be read, as loading it would."""
        self()


@dataclass(frozen=True, kw_only=True)
class HubRow(Record):
    """A row of a table.

    Args:
        table: the table.
        row: which one, from 0.
    """

    table: Table
    row: int

    def picture(self, column: str) -> StoredPicture:
        """Returns the row's picture."""
        return StoredPicture(table=self.table, column=column, row=self.row)


def read_rows(
    folder: Path,
    split: str,
    *,
    columns: Sequence[str],
    picture: str = "",
    optional: Sequence[str] = (),
    config: str = "",
    with_picture_only: bool = False,
) -> Iterator[HubRow]:
    """Yields the rows of a part, of all its files in order.

    Args:
        folder: the benchmark's.
        split: the part's name on the hub.
        columns: what must be there, without the pictures.
        picture: the column of pictures, if one is needed.
        optional: what is read where it is there.
        config: a word of the path that tells the table from others.
        with_picture_only: leave out rows that have none.

    Raises:
        DataError: a file is missing or damaged, or is no such table.
        ResourceError: the library that reads tables is not installed.
    """
    for path in shards(folder, split, config=config):
        table = open_table(path)
        _require_columns(table, columns, picture)
        names = [*columns, *(name for name in optional if name in table.schema.names)]
        has_picture = table.has_picture(picture) if with_picture_only else []
        for number, fields in enumerate(table.rows(names)):
            if not with_picture_only or has_picture[number]:
                yield HubRow(file=str(path), label=f"row {number + 1}", fields=fields, table=table, row=number)


def open_table(path: Path) -> Table:
    """Opens a file of either kind.

    Raises:
        DataError: it is none, or not whole.
        ResourceError: the library that reads it is not installed.
    """
    return tables.open_table(path, kind=Record)


def _require_columns(table: Table, columns: Sequence[str], picture: str) -> None:
    for name in [*columns, *([picture] if picture else [])]:
        if name not in table.schema.names:
            raise bad_annotation(str(table.path), f"column '{name}' is missing", code="missing_field")
    if picture and not holds_pictures(table.schema.field(picture).type):
        why = f"column '{picture}' holds no pictures but values of type {table.schema.field(picture).type}"
        raise bad_annotation(str(table.path), why)
