"""Reads files of lines that a user wrote: items to ask about, and the records of training data.

A line of items: {"image": "cats/1.jpg", "question": "how many?", "id": "q7"}; image paths start from the file's own
folder, `instruction` may replace `question`, `id` may be left out, other fields are ignored. Blank lines are skipped, a
UTF-8 byte order mark is accepted.

One bad line never stops the rest: it becomes an ItemError in its place, and a batch writes it as a record. Ids that are
used twice do stop, before any work: results could not be told apart, nor resumed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

from vlinstruct.errors import DataError, InputError, shortened
from vlinstruct.files import PathLike, open_regular
from vlinstruct.media.fetch import Url
from vlinstruct.records.foreign import ForeignRecord, as_object, is_unicode, is_whole, parse_strictly
from vlinstruct.text import check_instruction

MAX_LINE_BYTES = 1_000_000
"""Most bytes of a line, checked before it is parsed."""

BOM = b"\xef\xbb\xbf"
# The first bytes of gzip, zip, bzip2, xz, zstd and 7z: as text they would be one bad line without end.
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_HEAD_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class ItemOptions:
    """What a line may name as its image.

    Args:
        allow_outside: accept absolute paths and paths that lead out of the images' folder.
        allow_urls: accept http(s) URLs.
    """

    allow_outside: bool = False
    allow_urls: bool = False


DEFAULT_ITEM_OPTIONS = ItemOptions()


@dataclass(frozen=True, kw_only=True)
class Item:
    """A line that can be used.

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


class UserRecord(ForeignRecord):
    """A record of a file that a user made: of items, or of training data."""

    ADVICE_IF_MISSING: ClassVar[str | None] = "Add it"

    def id_or(self, fallback: str) -> str | int:
        """Returns the field `id`, a number as a number; the fallback where there is none."""
        value = self.fields.get("id", fallback)
        if not (isinstance(value, str) and value) and not is_whole(value):
            raise self.error("field 'id' is neither text nor a whole number")
        assert isinstance(value, str | int)
        if isinstance(value, str) and not is_unicode(value):
            raise self.error("field 'id' is not valid Unicode")
        return value

    def instruction(self, name: str) -> str:
        """Returns a field that a model is to read, byte for byte.

        Raises:
            DataError: it is missing or no text.
            TextError: it is blank, too long or not valid Unicode.
        """
        return check_instruction(self.raw_text(name), what=self.place)

    def question(self) -> str:
        """Returns the field `question`, or `instruction`, of which only one may be there."""
        if {"question", "instruction"} <= self.fields.keys():
            raise self.error("both 'question' and 'instruction' are given", advice="Keep one of them")
        return self.instruction("instruction" if "instruction" in self.fields else "question")

    def image_place(self, text: str, root: PathLike, options: ItemOptions) -> Path | Url:
        """Returns where the record's picture is.

        Args:
            text: what the record has as its image.
            root: the folder that a path starts from.
            options: whether a URL, or a path that leads out of that folder, is accepted.

        Raises:
            DataError: it is one that the options do not accept (`url_refused`, `image_outside`), or no path.
        """
        if text.lower().startswith(("http://", "https://")):
            if options.allow_urls:
                return Url(address=text)
            advice = "Download it, or allow it with --allow-urls"
            raise self.error("its image is a URL", code="url_refused", advice=advice)
        if text.lower().startswith(("data:", "file:")):
            raise self.error("its image is a data: or file: URL", code="url_refused", advice="Name a file")
        if "\0" in text:
            raise self.error("its image path holds a NUL character")
        inside = path_inside(root, text)
        if inside is None and not options.allow_outside:
            # The file may be a stranger's: it shall not make us read whatever lies on this disk.
            advice = "Move it there, or allow it with --allow-outside"
            raise self.error("its image lies outside the image folder", code="image_outside", advice=advice)
        return inside or Path(root, os.path.normpath(text))


def path_inside(root: PathLike, text: str) -> Path | None:
    """Returns the path that a record means by a text; None where it leads out of the folder or is no path.

    What is checked is the normalised path that is opened afterwards, so that "link/../x" cannot mean one thing here and
    another there.

    Args:
        root: the folder that the text starts from.
        text: as the record has it.

    >>> path_inside("images", "a/../b.jpg"), path_inside("images", "../b.jpg"), path_inside("images", "/b.jpg")
    (PosixPath('images/b.jpg'), None, None)
    """
    relative = os.path.normpath(text)
    leads_out = os.path.isabs(relative) or relative.split(os.sep)[0] == os.pardir
    return None if leads_out or "\0" in text else Path(root, relative)


def read_items(path: PathLike, *, options: ItemOptions = DEFAULT_ITEM_OPTIONS) -> tuple[Item | ItemError, ...]:
    """Reads all lines, so that ids used twice are known before any work starts.

    Args:
        path: a JSON-lines file.
        options: what the lines may name as their images.

    Raises:
        DataError: the file cannot be read as JSON lines, has nothing to do (`nothing_to_do`) or ids used twice
            (`duplicate_ids`). What is wrong with one line becomes an ItemError in its place.
    """
    file = os.fspath(path)
    with open_regular(path, kind="data") as stream:
        start = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]
        require_text(start, file, action="cannot read items")
        # Its lines would each be refused, and none of the messages would say that the file is of another kind.
        if start.removeprefix(BOM).lstrip().startswith(b"["):
            advice = "Write one object per line (jq -c '.[]' FILE)"
            raise _refuse_items(file, "json_list", "it is one JSON list", advice)
        items = tuple(_read_item(number, line, file, options) for number, line in numbered_lines(stream))
    if not items:
        raise _refuse_items(file, "nothing_to_do", "nothing to do, it has no lines", "Check the file")
    # 7 and "7" would be one name in many readers' eyes.
    counts = Counter(str(item.id) for item in items)
    if repeated := [name for name, count in counts.items() if count > 1]:
        first = ", ".join(shortened(name, 20) for name in repeated[:5])
        why = f"{len(repeated)} ids are used twice: {first}"
        raise _refuse_items(file, "duplicate_ids", why, "Give every line its own id")
    return items


def _refuse_items(file: str, code: str, why: str, advice: str) -> DataError:
    return DataError.at("cannot read items", file, why, advice, code=code)


def _read_item(number: int, line: bytes, file: str, options: ItemOptions) -> Item | ItemError:
    item_id: str | int = f"line-{number}"
    try:
        fields = parse_record(line, f"{file} line {number}")
        record = UserRecord(file=file, label=f"line {number}", fields=fields)
        item_id = record.id_or(f"line-{number}")  # before the rest, whose errors then bear it
        image = record.image_place(record.raw_text("image"), os.path.dirname(file), options)
        return Item(id=item_id, image=image, question=record.question(), line=number)
    except InputError as error:
        return ItemError(id=item_id, line=number, error=error)


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
    """Yields the non-blank lines with their numbers; one past the cap comes cut to one byte more than the cap.

    So a file of one endless line takes no memory, and `parse_record` still sees that it was too long.
    """
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


def parse_record(line: bytes, place: str) -> dict[str, object]:
    """Parses one line strictly: an object, no field twice, no NaN.

    Raises:
        DataError: it is anything else.
    """
    if len(line) > MAX_LINE_BYTES:
        why = f"more than {MAX_LINE_BYTES:,} bytes"
        raise ForeignRecord.error_at(place, why, code="line_too_long", advice="Shorten the line")
    return as_object(parse_strictly(line, place), place)
