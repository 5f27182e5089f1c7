"""Reads parquet and Arrow tables: rows without their pictures at once, a picture when it is asked for.

A picture is a column of type struct{bytes, path}, as `datasets` writes it, a list of such, or of bytes alone. Its bytes
are taken as a picture file's would be. Nothing of a table is run: no pickles, no code of a data set.

No more than a few pictures are in memory: a parquet file gives the picture column of a group of rows in small batches,
in order; a row before the last one read costs another pass over its group. An Arrow file is mapped.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vlinstruct.errors import DataError, not_installed
from vlinstruct.files import PathLike, open_regular, refusal
from vlinstruct.media.image_formats import NoImage, identify
from vlinstruct.records.foreign import ForeignRecord

TABLE_SUFFIXES = (".parquet", ".arrow")

_BATCH_ROWS = 1024  # read without their pictures
_BATCH_PICTURES = 8  # in memory at once
_BUFFER_BYTES = 1 << 20
_HEAD_BYTES = 64
_PARQUET, _ARROW_FILE, _ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"


class Table(Protocol):
    """A table in a file."""

    path: Path
    schema: Any

    def rows(self, columns: Sequence[str]) -> Iterator[Mapping[str, object]]:
        """Yields the rows with some of their columns."""
        ...

    def rows_without_bytes(self) -> Iterator[Mapping[str, object]]:
        """Yields the rows with all of their columns; of a picture at most its path."""
        ...

    def embeds(self, column: str) -> bool:
        """Returns whether a column of pictures holds any bytes."""
        ...

    def has_picture(self, column: str) -> Sequence[bool]:
        """Returns which rows have a picture."""
        ...

    def picture(self, column: str, row: int) -> bytes | None:
        """Returns the bytes of a row's picture; rows are counted from 0."""
        ...


@dataclass(frozen=True, kw_only=True)
class TablePicture:
    """A picture in a table.

    Args:
        table: the table.
        column: where it stands.
        row: which row, from 0.
    """

    table: Table
    column: str
    row: int

    @property
    def place(self) -> str:
        """What messages call it."""
        return f"{self.table.path} row {self.row + 1}"

    def __str__(self) -> str:
        return self.place

    @property
    def file(self) -> Path:
        """The table's file."""
        return self.table.path

    def content(self) -> bytes:
        """Returns its bytes.

        Raises:
            ImageError: the row holds none.
            DataError: the table is damaged there.
        """
        content = self.table.picture(self.column, self.row)
        if content is None:  # a copy may keep a path alone, which is never opened
            why = f"column '{self.column}' holds no picture there, at most its path"
            raise refusal("image", self.place, "missing", why, "Get the file again, with the pictures in it")
        return content


def is_table(file: str, start: bytes) -> bool:
    """Returns whether a file is a parquet or Arrow table, by its name or its first bytes."""
    return file.lower().endswith(TABLE_SUFFIXES) or start.startswith((_PARQUET, _ARROW_FILE, _ARROW_STREAM))


def open_table(path: PathLike, *, kind: type[ForeignRecord] = ForeignRecord) -> Table:
    """Opens a file of either kind.

    Args:
        path: the file.
        kind: the kind of record whose words say that it cannot be used.

    Raises:
        DataError: it is none, or not whole.
        ResourceError: the library that reads it is not installed.
    """
    path = Path(path)
    with open_regular(path, kind="data") as stream:
        start = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]
    content_kind = identify(start)
    # A clone without git-lfs leaves pointers, a download behind a login page HTML; the library's words say neither.
    if isinstance(content_kind, NoImage) and content_kind.code in ("lfs_pointer", "html"):
        raise kind.error_at(str(path), f"no table: {content_kind.why}", code="bad_table")
    is_arrow = start.startswith((_ARROW_FILE, _ARROW_STREAM)) or (
        path.suffix.lower() == ".arrow" and not start.startswith(_PARQUET)
    )
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise not_installed(f"a {'arrow' if is_arrow else 'parquet'} file", "pyarrow", "parquet") from None
    table = _ArrowTable(path, kind) if is_arrow else _ParquetTable(path, kind)
    # Which of the two would be read is the library's affair.
    twice = [name for name, count in Counter(table.schema.names).items() if count > 1]
    if twice:
        raise kind.error_at(str(path), f"two of its columns are called {twice[0]!r:.60}", code="bad_table")
    return table


def records_of(table: Table) -> Iterator[Mapping[str, object]]:
    """Yields the rows as fields: a null is a field that is not there, a picture with bytes a TablePicture.

    Raises:
        DataError: the file is damaged.
    """
    embedded = [
        name for name in table.schema.names if holds_pictures(table.schema.field(name).type) and table.embeds(name)
    ]
    for row, cells in enumerate(table.rows_without_bytes()):
        fields = {name: cell for name, cell in cells.items() if cell is not None}
        for name in embedded:
            cell = cells.get(name, {})
            pictures = cell if isinstance(cell, list) else [cell]
            # Several pictures in one row stay what they are: whoever reads the field says how many it takes.
            if len(pictures) == 1 and pictures[0] is not None:
                fields[name] = TablePicture(table=table, column=name, row=row)
        yield fields


class _ParquetTable:
    """A parquet file, kept open; threads take turns at its pictures."""

    def __init__(self, path: Path, kind: type[ForeignRecord]) -> None:
        from pyarrow.parquet import ParquetFile

        self.path = path
        self._kind = kind
        with self._sound():
            # As both are by default, all pictures of a group of rows would be read at once.
            self._file = ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            self.schema = self._file.schema_arrow
            groups = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
            self._leaves = [self._file.schema.column(place).path for place in range(len(self._file.schema))]
        self._ends = [sum(groups[: group + 1]) for group in range(len(groups))]
        self._lock = threading.Lock()
        self._cursor: _Cursor | None = None

    def _sound(self) -> Any:
        return _sound(self.path, "parquet", self._kind)

    def rows(self, columns: Sequence[str]) -> Iterator[Mapping[str, object]]:
        with self._sound():
            for batch in self._file.iter_batches(_BATCH_ROWS, columns=list(columns)):
                yield from batch.to_pylist()

    def rows_without_bytes(self) -> Iterator[Mapping[str, object]]:
        pictures = [name for name in self.schema.names if holds_pictures(self.schema.field(name).type)]
        left_out = {self._bytes_leaf(name) for name in pictures}
        light = [leaf for leaf in self._leaves if leaf not in left_out]
        if light:
            yield from self.rows(light)
        else:  # pictures and nothing else
            yield from ({} for _ in range(self._file.metadata.num_rows))

    def _bytes_leaf(self, column: str) -> str:
        """Returns what parquet calls a picture's bytes: of a struct its path would be decoded for every row, too."""
        inside = [leaf for leaf in self._leaves if leaf.startswith(f"{column}.") and leaf.endswith(".bytes")]
        return inside[0] if inside else column

    def embeds(self, column: str) -> bool:
        place = self._leaves.index(self._bytes_leaf(column))
        for group in range(self._file.num_row_groups):
            chunk = self._file.metadata.row_group(group).column(place)
            statistics = chunk.statistics
            if statistics is None or not statistics.has_null_count or statistics.null_count < chunk.num_values:
                return True
        return False

    def has_picture(self, column: str) -> Sequence[bool]:
        if not _is_struct(self.schema.field(column).type):
            return [True] * self._file.metadata.num_rows
        with self._sound():  # the paths tell it, too, and are a thousandth of the bytes
            values = self._file.read(columns=[f"{column}.path"])[column]
            return [bool(is_valid) for is_valid in values.is_valid().to_pylist()]

    def picture(self, column: str, row: int) -> bytes | None:
        with self._lock, self._sound():
            group = next(group for group, end in enumerate(self._ends) if row < end)
            if self._cursor is None or not self._cursor.can_reach(column, group, row):
                self._cursor = None  # its memory is free before the next one's is taken
                self._cursor = self._start(column, group)
            content = _content(self._cursor.take(row))
            if row + 1 == self._ends[group]:
                self._cursor = None  # a table that was gone through holds no memory while the next one is
            return content

    def _start(self, column: str, group: int) -> _Cursor:
        leaf = self._bytes_leaf(column)
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
    """An Arrow stream or file, mapped into memory."""

    def __init__(self, path: Path, kind: type[ForeignRecord]) -> None:
        from pyarrow import ipc, memory_map

        self.path = path
        self._kind = kind
        with self._sound():
            mapped = memory_map(str(path))
            is_file = mapped.read(len(_ARROW_FILE)) == _ARROW_FILE
            mapped.seek(0)
            self._table = (ipc.open_file(mapped) if is_file else ipc.open_stream(mapped)).read_all()
            self._table.validate(full=True)  # unlike parquet's, these offsets are used as they stand in the file
        self.schema = self._table.schema

    def _sound(self) -> Any:
        return _sound(self.path, "arrow", self._kind)

    def rows(self, columns: Sequence[str]) -> Iterator[Mapping[str, object]]:
        with self._sound():
            for batch in self._table.select(list(columns)).to_batches(_BATCH_ROWS):
                yield from batch.to_pylist()

    def rows_without_bytes(self) -> Iterator[Mapping[str, object]]:
        # A struct cannot be read without one of its parts here: few rows at once, and what is not needed is let go.
        with self._sound():
            for batch in self._table.to_batches(_BATCH_PICTURES):
                for cells in batch.to_pylist():
                    yield {name: _without_bytes(cell) for name, cell in cells.items() if not isinstance(cell, bytes)}

    def embeds(self, column: str) -> bool:
        return any(_content(cell) is not None for cell in self._table[column])

    def has_picture(self, column: str) -> Sequence[bool]:
        return [bool(is_valid) for is_valid in self._table[column].is_valid().to_pylist()]

    def picture(self, column: str, row: int) -> bytes | None:
        return _content(self._table[column][row])


def _without_bytes(cell: object) -> object:
    if isinstance(cell, list):
        return [_without_bytes(entry) for entry in cell]
    if isinstance(cell, dict):
        return {name: value for name, value in cell.items() if not isinstance(value, bytes)}
    return cell


def holds_pictures(kind: Any) -> bool:
    """Returns whether a column's type is one that pictures have."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind):
        return _is_struct(kind.value_type) and holds_pictures(kind.value_type)
    if _is_struct(kind):
        names = [kind.field(place).name for place in range(kind.num_fields)]
        return {"bytes", "path"} <= set(names) and holds_pictures(kind.field("bytes").type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _is_struct(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_struct(kind))


def _content(value: Any) -> bytes | None:
    """Returns the bytes of a picture."""
    cell = value.as_py()
    if isinstance(cell, list) and len(cell) == 1:
        cell = cell[0]
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    return content if isinstance(content, bytes) else None


@contextmanager
def _sound(path: Path, name: str, kind: type[ForeignRecord]) -> Iterator[None]:
    """Turns what the library says of a damaged file into our error: its own text holds paths and addresses."""
    import pyarrow

    try:
        yield
    except MemoryError:  # pyarrow's own is an ArrowException, too; it says nothing about the file
        raise
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, name, kind) from error


def _damaged(path: Path, name: str, kind: type[ForeignRecord]) -> DataError:
    return kind.error_at(str(path), f"no whole and sound {name} file", code="bad_table")
