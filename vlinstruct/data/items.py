"""Reads a JSON-lines file of images and questions, so that one bad line never stops the rest.

A line: {"image": "cats/1.jpg", "question": "how many?", "id": "q7"}; `instruction` may stand in for `question`, `id`
may be left out, other fields are ignored. Blank lines are skipped, a UTF-8 byte order mark is accepted.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from vlinstruct.data.fetch import Url
from vlinstruct.data.files import PathLike, open_regular
from vlinstruct.data.text import check_instruction, error_line, shortened
from vlinstruct.errors import DataError, InputError

MAX_LINE_BYTES = 1_000_000
_BOM = b"\xef\xbb\xbf"
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One line's task.

    Args:
        id: the line's `id`, as given (a number stays a number), or `line-7`.
        image: the file, or the URL where these are allowed.
        question: the text, byte for byte.
        line: the line's number, from 1.
    """

    id: str | int
    image: Path | Url
    question: str
    line: int


@dataclass(frozen=True, kw_only=True)
class ItemError:
    """A line that cannot be used.

    Args:
        id: the line's `id` where it could be read, else `line-7`.
        line: the line's number, from 1.
        error: why.
    """

    id: str | int
    line: int
    error: InputError


@dataclass(frozen=True, kw_only=True)
class ItemOptions:
    """How an item file is read.

    Args:
        image_root: the folder that image paths start from; None is the file's own folder.
        allow_outside: accept absolute paths and paths that lead out of that folder.
        allow_urls: accept http(s) URLs as images.
        max_line_bytes: most bytes of a line, checked before it is parsed.
    """

    image_root: PathLike | None = None
    allow_outside: bool = False
    allow_urls: bool = False
    max_line_bytes: int = MAX_LINE_BYTES


DEFAULT_ITEM_OPTIONS = ItemOptions()


def read_items(path: PathLike, *, options: ItemOptions = DEFAULT_ITEM_OPTIONS) -> tuple[Item | ItemError, ...]:
    """Reads all lines, so that ids used twice are known before any work starts.

    Args:
        path: a JSON-lines file.
        options: what the lines may hold.

    Raises:
        DataError: the file cannot be read as JSON lines, has nothing to do (`nothing_to_do`) or ids used twice
            (`duplicate_ids`). What is wrong with one line becomes an ItemError in its place.
    """
    root = os.fspath(options.image_root) if options.image_root is not None else os.path.dirname(os.fspath(path))
    with open_regular(path, kind="data") as stream:
        _check_start(stream.peek(64)[:64], path)
        lines = _lines(stream, options.max_line_bytes)
        name = os.fspath(path)
        items = tuple(_read_line(number, line, f"{name} line {number}", root, options) for number, line in lines)
    if not items:
        raise _refuse_file(path, "nothing_to_do", "nothing to do, it has no lines", "Check the file")
    _check_ids(items, path)
    return items


def _check_start(start: bytes, path: PathLike) -> None:
    if start.startswith(_COMPRESSED):
        raise _refuse_file(path, "compressed", "compressed input not supported", "Unpack it first")
    if start.startswith(_UTF_16):
        raise _refuse_file(path, "encoding", "it is UTF-16", "Save it as UTF-8")
    if start.removeprefix(_BOM).lstrip().startswith(b"["):
        raise _refuse_file(path, "json_list", "it is one JSON list", "Write one object per line (jq -c '.[]' FILE)")


def _refuse_file(path: PathLike, code: str, why: str, advice: str) -> DataError:
    return DataError(error_line("cannot read items", os.fspath(path), why, advice), code=code)


def _check_ids(items: tuple[Item | ItemError, ...], path: PathLike) -> None:
    # 7 and "7" would be one name in many readers' eyes.
    counts = Counter(str(item.id) for item in items)
    if repeated := [name for name, count in counts.items() if count > 1]:
        first = ", ".join(shortened(name, 20) for name in repeated[:5])
        why = f"{len(repeated)} ids are used twice: {first}"
        raise _refuse_file(path, "duplicate_ids", why, "Give every line its own id")


def _lines(stream: BinaryIO, max_line_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yields the non-blank lines with their numbers; one past the cap comes cut to one byte more than the cap."""
    number = 0
    while line := stream.readline(max_line_bytes + 1):
        number += 1
        rest = line
        while not rest.endswith(b"\n") and (rest := stream.readline(65_536)):
            pass
        if number == 1:
            line = line.removeprefix(_BOM)
        if line.strip():
            yield number, line


def _read_line(number: int, line: bytes, place: str, root: str, options: ItemOptions) -> Item | ItemError:
    item_id: str | int = f"line-{number}"
    try:
        record = _parse(line, place, options.max_line_bytes)
        item_id = _id(record, place, item_id)
        image = _image(_text_field(record, "image", place), place, root, options)
        question = check_instruction(_question(record, place), what=place)
        return Item(id=item_id, image=image, question=question, line=number)
    except InputError as error:
        return ItemError(id=item_id, line=number, error=error)


def _bad(place: str, code: str, why: str, advice: str = "Correct the line") -> DataError:
    return DataError(error_line("cannot use item", place, why, advice), code=code)


def _parse(line: bytes, place: str, max_line_bytes: int) -> dict[str, object]:
    if len(line) > max_line_bytes:
        raise _bad(place, "line_too_long", f"more than {max_line_bytes:,} bytes", "Shorten the line")
    try:
        record = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique_fields)
    except UnicodeDecodeError as error:
        raise _bad(place, "encoding", "it is not UTF-8", "Save the file as UTF-8") from error
    except RecursionError as error:
        raise _bad(place, "bad_json", "it is nested too deeply") from error
    except ValueError as error:
        raise _bad(place, "bad_json", _json_problem(error)) from error
    if not isinstance(record, dict):
        raise _bad(place, "bad_json", "it is no JSON object")
    return record


def _json_problem(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON at column {error.colno} ({error.msg.removesuffix(':')})"
    return str(error) if isinstance(error, _FieldProblem) else "a number has too many digits"


class _FieldProblem(ValueError):
    pass


def _refuse_constant(name: str) -> NoReturn:
    raise _FieldProblem(f"{name} is no JSON number")


def _unique_fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise _FieldProblem(f"field {shortened(repeated, 40)!r} is given twice")
    return fields


def _id(record: dict[str, object], place: str, fallback: str | int) -> str | int:
    value = record.get("id", fallback)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise _bad(place, "bad_field", "field 'id' is neither text nor a whole number")
    if isinstance(value, str) and not _is_unicode(value):
        raise _bad(place, "bad_field", "field 'id' is not valid Unicode")
    return value


def _text_field(record: dict[str, object], name: str, place: str) -> str:
    if name not in record:
        raise _bad(place, "missing_field", f"field '{name}' is missing", "Add it")
    value = record[name]
    if not isinstance(value, str) or not value:
        raise _bad(place, "bad_field", f"field '{name}' is no text")
    return value


def _question(record: dict[str, object], place: str) -> str:
    if "instruction" not in record:
        return _text_field(record, "question", place)
    if "question" in record:
        raise _bad(place, "bad_field", "both 'question' and 'instruction' are given", "Keep one of them")
    return _text_field(record, "instruction", place)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _image(text: str, place: str, root: str, options: ItemOptions) -> Path | Url:
    if text.lower().startswith(("http://", "https://")):
        if options.allow_urls:
            return Url(address=text)
        raise _bad(place, "url_refused", "its image is a URL", "Download it, or allow it with --allow-urls")
    if text.lower().startswith(("data:", "file:")):
        raise _bad(place, "url_refused", "its image is a data: or file: URL", "Name a file")
    if "\0" in text:
        raise _bad(place, "bad_field", "its image path holds a NUL character")
    # The normalised path is the one that is opened, so that "link/../x" cannot mean one thing here and another there.
    relative = os.path.normpath(text)
    leads_out = os.path.isabs(relative) or relative.split(os.sep)[0] == os.pardir
    if leads_out and not options.allow_outside:
        why = "its image lies outside the image folder"
        raise _bad(place, "image_outside", why, "Move it there, or allow it with --allow-outside")
    return Path(root, relative)
