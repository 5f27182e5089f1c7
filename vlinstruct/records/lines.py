"""Lines of JSON records as people write them: numbered, bounded, strict, with messages that name the line."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from vlinstruct.errors import DataError, shortened
from vlinstruct.files import PathLike
from vlinstruct.media.fetch import Url

MAX_LINE_BYTES = 1_000_000
"""Most bytes of a line, checked before it is parsed."""

BOM = b"\xef\xbb\xbf"
# The first bytes of gzip, zip, bzip2, xz, zstd and 7z: as text they would be one bad line without end.
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, kw_only=True)
class ItemOptions:
    """How an item file is read.

    Args:
        allow_outside: accept absolute paths and paths that lead out of that folder.
        allow_urls: accept http(s) URLs as images.
    """

    allow_outside: bool = False
    allow_urls: bool = False


DEFAULT_ITEM_OPTIONS = ItemOptions()


def require_text(start: bytes, path: PathLike, *, action: str) -> None:
    """Refuses a file that its first bytes show to be no UTF-8 text.

    Args:
        start: its first bytes, six at least.
        path: the file.
        action: what it cannot be used for, in a message.

    Raises:
        DataError: it is compressed or UTF-16.
    """
    if start.startswith(_COMPRESSED):
        why, advice = "compressed input not supported", "Unpack it first"
        raise DataError.at(action, os.fspath(path), why, advice, code="compressed")
    if start.startswith(_UTF_16):
        raise DataError.at(action, os.fspath(path), "it is UTF-16", "Save it as UTF-8", code="encoding")


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yields the non-blank lines with their numbers; one past the cap comes cut to one byte more than the cap."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        rest = line
        while not rest.endswith(b"\n") and (rest := stream.readline(65_536)):
            pass
        if number == 1:
            line = line.removeprefix(BOM)
        if line.strip():
            yield number, line


def bad_record(place: str, code: str, why: str, advice: str = "Correct the line") -> DataError:
    """Returns the error of a record that cannot be used; `place` names its file and line."""
    return DataError.at("cannot use item", place, why, advice, code=code)


def parse_record(line: bytes, place: str) -> dict[str, object]:
    """Parses one line strictly: an object, no field twice, no NaN.

    Raises:
        DataError: it is anything else.
    """
    if len(line) > MAX_LINE_BYTES:
        raise bad_record(place, "line_too_long", f"more than {MAX_LINE_BYTES:,} bytes", "Shorten the line")
    return as_object(parse_strictly(line, place), place)


def parse_strictly(content: bytes, place: str) -> object:
    """Parses JSON: UTF-8, no field twice, no NaN, no number or nesting without end.

    Raises:
        DataError: it is anything else.
    """
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique_fields)
    except UnicodeDecodeError as error:
        raise bad_record(place, "encoding", "it is not UTF-8", "Save the file as UTF-8") from error
    except RecursionError as error:
        raise bad_record(place, "bad_json", "it is nested too deeply") from error
    except ValueError as error:
        raise bad_record(place, "bad_json", _json_problem(error)) from error


def as_object(record: object, place: str) -> dict[str, object]:
    """Returns the record, which must be a JSON object."""
    if not isinstance(record, dict):
        raise bad_record(place, "bad_json", "it is no JSON object")
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


def record_id(record: dict[str, object], place: str, fallback: str | int) -> str | int:
    """Returns the field `id`, or the fallback."""
    value = record.get("id", fallback)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise bad_record(place, "bad_field", "field 'id' is neither text nor a whole number")
    if isinstance(value, str) and not _is_unicode(value):
        raise bad_record(place, "bad_field", "field 'id' is not valid Unicode")
    return value


def text_field(record: dict[str, object], name: str, place: str) -> str:
    """Returns a field that must be there and hold text."""
    if name not in record:
        raise bad_record(place, "missing_field", f"field '{name}' is missing", "Add it")
    value = record[name]
    if not isinstance(value, str) or not value:
        raise bad_record(place, "bad_field", f"field '{name}' is no text")
    return value


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def image_place(text: str, place: str, root: str, options: ItemOptions) -> Path | Url:
    """Returns where a record's picture is.

    Raises:
        DataError: it is a URL or lies outside of the folder, and the options do not allow that.
    """
    if text.lower().startswith(("http://", "https://")):
        if options.allow_urls:
            return Url(address=text)
        raise bad_record(place, "url_refused", "its image is a URL", "Download it, or allow it with --allow-urls")
    if text.lower().startswith(("data:", "file:")):
        raise bad_record(place, "url_refused", "its image is a data: or file: URL", "Name a file")
    if "\0" in text:
        raise bad_record(place, "bad_field", "its image path holds a NUL character")
    inside = path_inside(root, text)
    if inside is None and not options.allow_outside:
        why = "its image lies outside the image folder"
        raise bad_record(place, "image_outside", why, "Move it there, or allow it with --allow-outside")
    return inside or Path(root, os.path.normpath(text))


def path_inside(root: PathLike, text: str) -> Path | None:
    """Returns the path that a record means by a text; None where it leads out of the folder or is no path.

    What is looked at is the normalised path that is opened afterwards, so that "link/../x" cannot mean one thing here
    and another there.

    Args:
        root: the folder that the text starts from.
        text: as the record has it.

    >>> path_inside("images", "a/../b.jpg"), path_inside("images", "../b.jpg"), path_inside("images", "/b.jpg")
    (PosixPath('images/b.jpg'), None, None)
    """
    relative = os.path.normpath(text)
    leads_out = os.path.isabs(relative) or relative.split(os.sep)[0] == os.pardir
    return None if leads_out or "\0" in text else Path(root, relative)
