"""Reads parquet and Arrow tables: rows without their pictures at once, a picture when it is asked for.

A picture is a column of type struct{bytes, path}, as `datasets` writes it, or of bytes alone. Its bytes are taken as a
picture file's would be, its path is never followed. Nothing of a table is run: no pickles, no code of a data set.

No more than a few pictures are in memory: a parquet file gives the picture column of a group of rows in small batches,
in order; a row before the last one read costs another pass over its group. An Arrow file is mapped.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from vlinstruct.errors import ResourceError
from vlinstruct.evaluation.reading.annotations import Record, bad_annotation
from vlinstruct.evaluation.reading.hub_files import shards
from vlinstruct.evaluation.reading.items import LimitedPicture
from vlinstruct.files import open_regular, refusal
from vlinstruct.media.image_formats import NoImage, identify
from vlinstruct.media.images import read_image

_BATCH_ROWS = 1024  # read without their pictures
_BATCH_PICTURES = 8  # in memory at once
_BUFFER_BYTES = 1 << 20
_HEAD_BYTES = 64


class HubTable(Protocol):
    """A table in a file."""

    path: Path
    schema: Any

    def rows(self, columns: Sequence[str]) -> Iterator[Mapping[str, object]]:
        """Yields the rows with some of their columns."""
        ...

    def has_picture(self, column: str) -> Sequence[bool]:
        """Returns which rows have a picture."""
        ...

    def picture(self, column: str, row: int) -> bytes | None:
        """Returns the bytes of a row's picture; rows are counted from 0."""
        ...


@dataclass(frozen=True, kw_only=True)
class StoredPicture(LimitedPicture):
    """A picture in a table; called, it gives the picture.

    Args:
        table: the table.
        column: where it stands.
        row: which row, from 0.
    """

    table: HubTable
    column: str
    row: int

    @property
    def place(self) -> str:
        """What messages call it."""
        return f"{self.table.path} row {self.row + 1}"

    def __call__(self) -> Image.Image:
        """Reads the picture.

        Raises:
            ImageError: it cannot be read.
            DataError: the table is damaged there.
        """
        content = self.table.picture(self.column, self.row)
        if content is None:  # a copy may keep a path alone, which is never opened
            why = f"column '{self.column}' holds no picture there, at most its path"
            raise refusal("image", self.place, "missing", why, "Get the file again, with the pictures in it")
        return read_image(content, name=self.place, limits=self.limits)

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

    table: HubTable
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


def open_table(path: Path) -> HubTable:
    """Opens a file of either kind.

    Raises:
        DataError: it is none, or not whole.
        ResourceError: the library that reads it is not installed.
    """
    with open_regular(path, kind="data") as stream:
        content_kind = identify(stream.peek(_HEAD_BYTES)[:_HEAD_BYTES])
    # A clone without git-lfs leaves pointers, a download behind a login page HTML; the library's words say neither.
    if isinstance(content_kind, NoImage) and content_kind.code in ("lfs_pointer", "html"):
        raise bad_annotation(str(path), f"no table: {content_kind.why}", code="bad_table")
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ResourceError(
            f"reading {path.suffix[1:]} files needs pyarrow, which is not installed: pip install 'vlinstruct[parquet]'."
        ) from None
    return _ArrowTable(path) if path.suffix == ".arrow" else _ParquetTable(path)


class _ParquetTable:
    """A parquet file, kept open; threads take turns at its pictures."""

    def __init__(self, path: Path) -> None:
        from pyarrow.parquet import ParquetFile

        self.path = path
        with _sound(path):
            # As both are by default, all pictures of a group of rows would be read at once.
            self._file = ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            self.schema = self._file.schema_arrow
            groups = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._ends = [sum(groups[: group + 1]) for group in range(len(groups))]
        self._lock = threading.Lock()
        self._cursor: _Cursor | None = None

    def rows(self, columns: Sequence[str]) -> Iterator[Mapping[str, object]]:
        with _sound(self.path):
            for batch in self._file.iter_batches(_BATCH_ROWS, columns=list(columns)):
                yield from batch.to_pylist()

    def has_picture(self, column: str) -> Sequence[bool]:
        if not _is_struct(self.schema.field(column).type):
            return [True] * self._file.metadata.num_rows
        with _sound(self.path):  # the paths tell it, too, and are a thousandth of the bytes
            values = self._file.read(columns=[f"{column}.path"])[column]
            return [bool(is_valid) for is_valid in values.is_valid().to_pylist()]

    def picture(self, column: str, row: int) -> bytes | None:
        with self._lock, _sound(self.path):
            group = next(group for group, end in enumerate(self._ends) if row < end)
            if self._cursor is None or not self._cursor.can_reach(column, group, row):
                self._cursor = None  # its memory is free before the next one's is taken
                self._cursor = self._start(column, group)
            content = _content(self._cursor.take(row))
            if row + 1 == self._ends[group]:
                self._cursor = None  # a table that was gone through holds no memory while the next one is
            return content

    def _start(self, column: str, group: int) -> _Cursor:
        # Of a struct the bytes alone: its path would be decoded for every row, and is not used.
        leaf = f"{column}.bytes" if _is_struct(self.schema.field(column).type) else column
        batches = self._file.iter_batches(_BATCH_PICTURES, row_groups=[group], columns=[leaf])
        return _Cursor(column=column, group=group, first=self._ends[group - 1] if group else 0, batches=batches)


class _Cursor:
    """Goes through the pictures of a group of rows.

    Args:
        column: of the pictures.
        group: which group of rows.
        first: its first row.
        batches: its pictures.
    """

    def __init__(self, *, column: str, group: int, first: int, batches: Iterator[Any]) -> None:
        self._column, self._group, self._first, self._batches = column, group, first, batches
        self._batch = next(batches, None)

    def can_reach(self, column: str, group: int, row: int) -> bool:
        """Returns whether a row's picture is here or still to come."""
        return (column, group) == (self._column, self._group) and row >= self._first

    def take(self, row: int) -> Any:
        """Returns what a row holds, reading batches up to it.

        Raises:
            OSError: the file ends before.
        """
        while self._batch is not None and row >= self._first + len(self._batch):
            self._first += len(self._batch)
            self._batch = next(self._batches, None)
        if self._batch is None:
            raise OSError("fewer rows than the file announces")
        return self._batch.column(0)[row - self._first]


class _ArrowTable:
    """An Arrow stream in a file, mapped into memory."""

    def __init__(self, path: Path) -> None:
        from pyarrow import ipc, memory_map

        self.path = path
        with _sound(path):
            self._table = ipc.open_stream(memory_map(str(path))).read_all()
            self._table.validate(full=True)  # unlike parquet's, these offsets are used as they stand in the file
        self.schema = self._table.schema

    def rows(self, columns: Sequence[str]) -> Iterator[Mapping[str, object]]:
        with _sound(self.path):
            for batch in self._table.select(list(columns)).to_batches(_BATCH_ROWS):
                yield from batch.to_pylist()

    def has_picture(self, column: str) -> Sequence[bool]:
        return [bool(is_valid) for is_valid in self._table[column].is_valid().to_pylist()]

    def picture(self, column: str, row: int) -> bytes | None:
        return _content(self._table[column][row])


def _require_columns(table: HubTable, columns: Sequence[str], picture: str) -> None:
    for name in [*columns, *([picture] if picture else [])]:
        if name not in table.schema.names:
            raise bad_annotation(str(table.path), f"column '{name}' is missing", code="missing_field")
    if picture and not _holds_pictures(table.schema.field(picture).type):
        why = f"column '{picture}' holds no pictures but values of type {table.schema.field(picture).type}"
        raise bad_annotation(str(table.path), why)


def _holds_pictures(kind: Any) -> bool:
    from pyarrow import types

    if _is_struct(kind):
        names = [kind.field(place).name for place in range(kind.num_fields)]
        return {"bytes", "path"} <= set(names) and _holds_pictures(kind.field("bytes").type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _is_struct(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_struct(kind))


def _content(value: Any) -> bytes | None:
    """Returns the bytes of a picture."""
    cell = value.as_py()
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    return content if isinstance(content, bytes) else None


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Turns what the library says of a damaged file into our error: its own text holds paths and addresses."""
    import pyarrow

    try:
        yield
    except MemoryError:  # pyarrow's own is an ArrowException, too; it says nothing about the file
        raise
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        why = f"no whole and sound {path.suffix[1:]} file"
        raise bad_annotation(str(path), why, code="bad_table") from error
