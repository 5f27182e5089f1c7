"""Reads a JSON-lines file of images and questions, so that one bad line never stops the rest.

A line: {"image": "cats/1.jpg", "question": "how many?", "id": "q7"}; image paths start from the file's own folder,
`instruction` may stand in for `question`, `id` may be left out, other fields are ignored. Blank lines are skipped, a
UTF-8 byte order mark is accepted.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vlinstruct.errors import DataError, InputError, shortened
from vlinstruct.files import PathLike, open_regular
from vlinstruct.media.fetch import Url
from vlinstruct.records.lines import (
    BOM,
    DEFAULT_ITEM_OPTIONS,
    ItemOptions,
    bad_record,
    image_place,
    numbered_lines,
    parse_record,
    record_id,
    require_text,
    text_field,
)
from vlinstruct.text import check_instruction


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


def read_items(path: PathLike, *, options: ItemOptions = DEFAULT_ITEM_OPTIONS) -> tuple[Item | ItemError, ...]:
    """Reads all lines, so that ids used twice are known before any work starts.

    Args:
        path: a JSON-lines file.
        options: what the lines may hold.

    Raises:
        DataError: the file cannot be read as JSON lines, has nothing to do (`nothing_to_do`) or ids used twice
            (`duplicate_ids`). What is wrong with one line becomes an ItemError in its place.
    """
    name = os.fspath(path)
    root = os.path.dirname(name)
    with open_regular(path, kind="data") as stream:
        _check_start(stream.peek(64)[:64], path)
        lines = numbered_lines(stream)
        items = tuple(_read_line(number, line, f"{name} line {number}", root, options) for number, line in lines)
    if not items:
        raise _refuse_file(path, "nothing_to_do", "nothing to do, it has no lines", "Check the file")
    _check_ids(items, path)
    return items


def _check_start(start: bytes, path: PathLike) -> None:
    require_text(start, path, action="cannot read items")
    if start.removeprefix(BOM).lstrip().startswith(b"["):
        raise _refuse_file(path, "json_list", "it is one JSON list", "Write one object per line (jq -c '.[]' FILE)")


def _refuse_file(path: PathLike, code: str, why: str, advice: str) -> DataError:
    return DataError.at("cannot read items", os.fspath(path), why, advice, code=code)


def _check_ids(items: tuple[Item | ItemError, ...], path: PathLike) -> None:
    # 7 and "7" would be one name in many readers' eyes.
    counts = Counter(str(item.id) for item in items)
    if repeated := [name for name, count in counts.items() if count > 1]:
        first = ", ".join(shortened(name, 20) for name in repeated[:5])
        why = f"{len(repeated)} ids are used twice: {first}"
        raise _refuse_file(path, "duplicate_ids", why, "Give every line its own id")


def _read_line(number: int, line: bytes, place: str, root: str, options: ItemOptions) -> Item | ItemError:
    item_id: str | int = f"line-{number}"
    try:
        record = parse_record(line, place)
        item_id = record_id(record, place, item_id)
        image = image_place(text_field(record, "image", place), place, root, options)
        question = check_instruction(_question(record, place), what=place)
        return Item(id=item_id, image=image, question=question, line=number)
    except InputError as error:
        return ItemError(id=item_id, line=number, error=error)


def _question(record: dict[str, object], place: str) -> str:
    if "instruction" not in record:
        return text_field(record, "question", place)
    if "question" in record:
        raise bad_record(place, "bad_field", "both 'question' and 'instruction' are given", "Keep one of them")
    return text_field(record, "instruction", place)
