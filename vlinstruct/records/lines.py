"""A record that a user wrote, of items to ask about or of training data, and the lines that such records stand in.

Blank lines are skipped, a UTF-8 byte order mark is accepted. Files of other forms: `input.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

from vlinstruct.errors import DataError
from vlinstruct.files import PathLike, leads_out
from vlinstruct.media.fetch import Url
from vlinstruct.media.image_formats import NoImage, identify
from vlinstruct.records.foreign import ForeignRecord, as_object, is_unicode, is_whole, parse_strictly
from vlinstruct.text import check_instruction

MAX_LINE_BYTES = 1_000_000
"""Most bytes of a line, checked before it is parsed."""

BOM = b"\xef\xbb\xbf"
# The first bytes of gzip, zip, bzip2, xz, zstd and 7z: as text they would be one bad line without end.
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, kw_only=True)
class ItemOptions:
    """What a line may name as its image.

    Args:
        allow_outside: accept paths that lead out of the images' folder, also through a link.
        allow_urls: accept http(s) URLs.
    """

    allow_outside: bool = False
    allow_urls: bool = False


DEFAULT_ITEM_OPTIONS = ItemOptions()


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
        if not options.allow_outside and (inside is None or leads_out(inside, root)):
            # The file may be a stranger's: it shall not make us read whatever lies on this disk.
            why = f"its image lies outside the image folder{', behind a link' if inside else ''}"
            advice = "Move it there, or allow it with --allow-outside"
            raise self.error(why, code="image_outside", advice=advice)
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
    if os.path.isabs(relative):  # some files have whole paths, which may well lie in the folder
        base = os.path.abspath(root)
        is_inside = os.path.commonpath([base, relative]) == base and "\0" not in text
        return Path(relative) if is_inside else None
    leads_out = relative.split(os.sep)[0] == os.pardir
    return None if leads_out or "\0" in text else Path(root, relative)


def require_text(start: bytes, path: PathLike, *, action: str) -> None:
    """Refuses a file that its first bytes show to be no UTF-8 text.

    Args:
        start: its first bytes, six at least.
        path: the file.
        action: what it cannot be used for, in a message.

    Raises:
        DataError: it is compressed, UTF-16, binary, or what a failed download leaves.
    """
    if start.startswith(_COMPRESSED):
        why, advice = "compressed input not supported", "Unpack it first"
        raise DataError.at(action, os.fspath(path), why, advice, code="compressed")
    if start.startswith(_UTF_16):
        raise DataError.at(action, os.fspath(path), "it is UTF-16", "Save it as UTF-8", code="encoding")
    content_kind = identify(start)
    # As text each of their lines would be refused, and none of the messages would say what the file is.
    if isinstance(content_kind, NoImage) and content_kind.code in ("lfs_pointer", "html"):
        why = content_kind.why.replace("not an image (looks like HTML)", "it is a page of HTML")
        raise DataError.at(action, os.fspath(path), why, content_kind.advice, code="no_text")
    if start.count(b"\0") > 3:  # a stray one is a mistake in a line, and told there
        why = "it is no text" if isinstance(content_kind, NoImage) else f"it is no text but a {content_kind} picture"
        raise DataError.at(action, os.fspath(path), why, "Name a file of records", code="no_text")


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
