"""Finds the records where they lie: JSON lines, one JSON text, a CSV table, parquet or Arrow, an image folder.

An image folder is Hugging Face's `imagefolder`: pictures beside metadata.jsonl or metadata.csv. One JSON text is a list
of records, one record, or COCO's captions, whose pictures' names stand in a table of their own. A record is parsed when
it is read, not when it is found, so that a bad one is counted and the others are still looked at.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from io import BufferedReader
from itertools import islice

from vlinstruct.errors import DataError, shortened
from vlinstruct.files import PathLike, leads_out, open_regular
from vlinstruct.records.columns import Columns, renamed, require_columns
from vlinstruct.records.csv_rows import csv_rows
from vlinstruct.records.foreign import as_object, parse_document
from vlinstruct.records.lines import BOM, MAX_LINE_BYTES, UserRecord, numbered_lines, parse_record, require_text
from vlinstruct.records.tables import TABLE_SUFFIXES, is_table, open_table, records_of

METADATA_FILES = ("metadata.jsonl", "metadata.csv")
_HEAD_BYTES = 64
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=[-.])")
_PICTURE_COLUMNS = {"file_name", "image", "images"}
_CSV_SUFFIXES, _EXCEL_SUFFIXES = (".csv", ".tsv"), (".xlsx", ".xls")
_COCO_START = re.compile(rb'\s*\{\s*"(info|images|annotations|licenses|categories|type)"')
_ONE_PER_LINE = "Write one object per line (jq -c . FILE), or one list of them"


@dataclass(frozen=True, kw_only=True)
class UnreadRecord:
    """One record, not parsed yet.

    Args:
        file: where it stands.
        label: what it is called there, e.g. `line 7`.
        is_metadata: it is an image folder's, COCO's or a table's like them: its picture is `file_name`.
        is_caption: it is one of these or a row of any table: a `text` alone is a caption.
        parse: returns its fields, or raises a DataError.
    """

    file: str
    label: str
    is_metadata: bool = False
    is_caption: bool = False
    parse: Callable[[], Mapping[str, object]]

    def read(self) -> UserRecord:
        """Returns the record's fields.

        Raises:
            DataError: it cannot be parsed.
        """
        return UserRecord(file=self.file, label=self.label, fields=self.parse())


def data_file(path: PathLike) -> str:
    """Returns what holds the records: the file itself, a folder's metadata or one table, or a folder of shards.

    Raises:
        DataError: a folder without any (`nothing_to_do`), with several that are no shards of one whole, or with one
            that is a link out of it.
    """
    folder = os.fspath(path)
    if not os.path.isdir(folder):
        return folder
    paths = [path for name in METADATA_FILES if os.path.lexists(path := os.path.join(folder, name))]
    if len(paths) > 1:
        why = f"the folder holds {METADATA_FILES[0]} and {METADATA_FILES[1]}"
        raise DataError.at("cannot read data", folder, why, "Name one of them", code="two_metadata_files")
    tables = [] if paths else _tables_in(folder)
    for path in [*paths, *(os.path.join(folder, name) for name in tables)]:
        if leads_out(path, folder):  # the folder may be a stranger's
            why = "it is a link that leads out of the folder"
            raise DataError.at(
                "cannot read data", path, why, "Copy it there, or name the file itself", code="data_outside"
            )
    if paths:
        return paths[0]
    if not tables:
        why = f"nothing to do, the folder holds neither {METADATA_FILES[0]} nor {METADATA_FILES[1]}, and no table"
        advice = "Name one that does, or a file of JSON lines"
        raise DataError.at("cannot read data", folder, why, advice, code="nothing_to_do")
    if len(tables) == 1:
        return os.path.join(folder, tables[0])
    numbers = [_SHARD.search(name) for name in tables]
    wholes = {(_SHARD.sub("", name), match[2] if match else "") for name, match in zip(tables, numbers, strict=True)}
    if len(wholes) > 1 or None in numbers:
        why = f"the folder holds {len(tables)} tables, {shortened(tables[0], 40)} and others"
        raise DataError.at("cannot read data", folder, why, "Name one of them", code="several_tables")
    ((_, num_shards),) = wholes
    if len(tables) != int(num_shards):  # an interrupted download
        why = f"{len(tables)} of {int(num_shards)} shards are there"
        raise DataError.at("cannot read data", folder, why, "Get the others, or name one", code="shards_missing")
    return folder


def _tables_in(folder: str) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.lower().endswith(TABLE_SUFFIXES))


def root_of(file: str, image_root: PathLike | None = None) -> str:
    """Returns the folder that the image paths of a file, or of a folder of shards, start from."""
    if image_root is not None:
        return os.fspath(image_root)
    return file if os.path.isdir(file) else os.path.dirname(file)


def unread_records(file: str, *, columns: Columns) -> Iterator[UnreadRecord]:
    """Yields every record of a file, also those that cannot be used.

    Args:
        file: of any of the forms, or a folder of shards.
        columns: which field of the file is meant by a name.

    Raises:
        DataError: the file cannot be read, has no record (`nothing_to_do`), or lacks a column that was named.
        ResourceError: it is parquet or Arrow, and the library that reads them is not installed.
    """
    num_records = 0
    for record in _records(file, columns):
        num_records += 1
        yield replace(record, parse=partial(_renamed, record, columns)) if columns else record
    if not num_records:
        raise _refuse_file(file, "nothing_to_do", "nothing to do, it has no records", "Check the file")


def _renamed(record: UnreadRecord, columns: Columns) -> Mapping[str, object]:
    return renamed(record.read(), columns)


def _records(file: str, columns: Columns) -> Iterator[UnreadRecord]:
    if os.path.isdir(file):
        for name in _tables_in(file):
            for record in _table_records(os.path.join(file, name), columns):
                yield replace(record, label=f"{name} {record.label}", file=file)
        return
    with open_regular(file, kind="data") as stream:
        start = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]
        if is_table(file, start):
            yield from _table_records(file, columns)
            return
        suffix = os.path.splitext(file)[1].lower()
        if suffix in _EXCEL_SUFFIXES:
            raise _refuse_file(file, "other_table", "it is an Excel table", "Save it as CSV")
        require_text(start, file, action="cannot read data")
        opening = start.removeprefix(BOM).lstrip()
        if suffix in _CSV_SUFFIXES:
            yield from _csv_records(stream, file, columns)
        elif opening.startswith(b"[") or (opening.startswith(b"{") and _is_one_object(stream)):
            yield from _document_records(stream, file)
        else:
            yield from _line_records(stream, file)


def _refuse_file(file: str, code: str, why: str, advice: str) -> DataError:
    return DataError.at("cannot read data", file, why, advice, code=code)


def _line_records(stream: BufferedReader, file: str) -> Iterator[UnreadRecord]:
    is_metadata = os.path.basename(file) in METADATA_FILES
    for number, line in numbered_lines(stream):
        parse = partial(parse_record, line, f"{file} line {number}")
        label = f"line {number}"
        yield UnreadRecord(file=file, label=label, is_metadata=is_metadata, is_caption=is_metadata, parse=parse)


def _is_one_object(stream: BufferedReader) -> bool:
    """Says whether a file that begins with `{` is one object and no JSON lines, by its first line; reads none of it."""
    line, *more = (line for _, line in islice(numbered_lines(stream), 2))
    stream.seek(0)
    if len(line) > MAX_LINE_BYTES:  # COCO's files are one line of many megabytes; any other would be a line too long
        return _COCO_START.match(line) is not None
    text = line.decode("utf-8", "replace").rstrip()
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        # It goes on in the next line, and not within a text: it is laid out for people. Or it is a line cut short.
        is_next_record = bool(more) and more[0].lstrip().startswith(b"{") and not text.endswith("[")
        return error.pos >= len(text) and bool(more) and not is_next_record
    except (RecursionError, ValueError):
        return False
    return isinstance(fields, dict) and _is_coco(fields)


def _is_coco(fields: Mapping[str, object]) -> bool:
    return isinstance(fields.get("annotations"), list) and isinstance(fields.get("images"), list)


def _document_records(stream: BufferedReader, file: str) -> Iterator[UnreadRecord]:
    """Yields the records of a file that is one JSON text: a list, a record, or COCO's."""
    content = stream.read().removeprefix(BOM)

    def refuse(cause: json.JSONDecodeError, words: str) -> DataError:
        why = f"not valid JSON at column {cause.colno} ({words})"
        advice = None if content.lstrip().startswith(b"[") else _ONE_PER_LINE
        return UserRecord.error_at(f"{file} line {cause.lineno}", why, code="bad_json", advice=advice)

    records = parse_document(content, file, refuse)
    if isinstance(records, dict):
        if _is_coco(records):
            yield from _coco_records(records, file)
            return
        _refuse_wrapped(records, file)
        records = [records]
    assert isinstance(records, list)
    is_metadata = os.path.basename(file) in METADATA_FILES
    for number, record in enumerate(records, start=1):
        parse = partial(as_object, record, f"{file} record {number}")
        label = f"record {number}"
        yield UnreadRecord(file=file, label=label, is_metadata=is_metadata, is_caption=is_metadata, parse=parse)


def _refuse_wrapped(fields: Mapping[str, object], file: str) -> None:
    """Refuses an object whose records are a list inside, as VQA's files of questions and of annotations are."""
    names = [
        name
        for name in ("questions", "annotations", "data", "train", "samples", "items", "rows")
        if isinstance(fields.get(name), list)
    ]
    if not names:
        return
    if names[0] in ("questions", "annotations"):
        why = f"it is one JSON object of '{names[0]}' as VQA's and COCO's files are: pictures are numbers there"
        advice = "Write records with image, question and answer"
    else:
        why = f"it is one JSON object, its records are the list '{names[0]}'"
        advice = f"Write that list alone (jq .{names[0]} FILE)"
    raise _refuse_file(file, "wrapped_records", why, advice)


def _coco_records(fields: Mapping[str, object], file: str) -> Iterator[UnreadRecord]:
    """Yields COCO's captions with their pictures' names, which stand beside them by number."""
    images, annotations = fields["images"], fields["annotations"]
    assert isinstance(images, list)
    assert isinstance(annotations, list)
    if annotations and not any(isinstance(entry, dict) and "caption" in entry for entry in annotations):
        why = "these are COCO's annotations without captions, there is no text to learn"
        raise _refuse_file(file, "coco_without_captions", why, "Take captions_*.json")
    file_names = {str(entry.get("id")): entry.get("file_name") for entry in images if isinstance(entry, dict)}

    def parse(entry: object, place: str) -> dict[str, object]:
        annotation = as_object(entry, place)
        name = file_names.get(str(annotation.get("image_id")))
        if name is None:
            why = f"'images' holds no file_name for image_id {shortened(str(annotation.get('image_id')), 20)}"
            raise UserRecord.error_at(place, why, code="missing_field")
        return {**annotation, "file_name": name}

    for number, entry in enumerate(annotations, start=1):
        label = f"annotation {number}"
        reader = partial(parse, entry, f"{file} {label}")
        yield UnreadRecord(file=file, label=label, is_metadata=True, is_caption=True, parse=reader)


def _csv_records(stream: BufferedReader, file: str, columns: Columns) -> Iterator[UnreadRecord]:
    rows = csv_rows(stream, file)
    header = next(rows, None)
    if header is None:
        return
    if header.problem is not None:
        raise header.problem
    names = [cell.strip() for cell in header.cells]
    if repeated := [name for name in names if name and names.count(name) > 1]:
        why = f"column '{shortened(repeated[0], 40)}' is given twice"
        raise _refuse_file(file, "bad_csv", why, "Rename one")
    require_columns(names, columns, file)
    if "image" not in columns and not _PICTURE_COLUMNS & set(names):
        why = f"its first line has no column 'file_name'; there {_are(names)}"
        advice = "Name the columns there, or say which it is: --columns image=NAME"
        raise _refuse_file(file, "bad_csv", why, advice)
    is_metadata = "file_name" in names or "image" not in names
    for row in rows:
        label = f"line {row.line}"
        parse = partial(row.fields, names, f"{file} {label}")
        yield UnreadRecord(file=file, label=label, is_metadata=is_metadata, is_caption=True, parse=parse)


def _are(names: list[str]) -> str:
    return f"{'is' if len(names) == 1 else 'are'} {shortened(', '.join(names), 60)}"


def _table_records(file: str, columns: Columns) -> Iterator[UnreadRecord]:
    table = open_table(file, kind=UserRecord)
    require_columns(table.schema.names, columns, file)
    for number, fields in enumerate(records_of(table), start=1):
        yield UnreadRecord(file=file, label=f"row {number}", is_caption=True, parse=partial(dict, fields))
