"""Reads items with their right answers, in any of the forms of `input.py`: what `tune` learns an instruction from.

A record: {"image": "a.jpg", "answer": "scratch", "question": "which part?", "id": "q7"}. An answer is a text, a
number, or a list of them: VQA's ten answers, perhaps as objects that hold them, or a caption's references. `answers`
may replace `answer`, `id` may be left out; the question is there in every record or in none.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass

from vlinstruct.errors import InputError, shortened
from vlinstruct.files import PathLike
from vlinstruct.records.columns import Columns
from vlinstruct.records.input import UnreadRecord, data_file, root_of, unread_records
from vlinstruct.records.items import ItemError, require_own_ids
from vlinstruct.records.lines import DEFAULT_ITEM_OPTIONS, ItemOptions, UserRecord
from vlinstruct.records.pictures import Picture, no_picture, picture_of
from vlinstruct.text import check_instruction

LABELLED_FIELDS = ("image", "question", "answer", "id")


@dataclass(frozen=True, kw_only=True)
class LabelledItem:
    """A record that can be used.

    Args:
        id: the record's `id`, as given, or `line-7`.
        image: the file, the table's picture, or the URL where these are allowed.
        question: the text, byte for byte; None where the record has none.
        answers: what is right, at least one.
        line: the number of the line, row or record, from 1.
    """

    id: str | int
    image: Picture
    question: str | None
    answers: tuple[str, ...]
    line: int


def read_labelled(
    path: PathLike, *, options: ItemOptions = DEFAULT_ITEM_OPTIONS, columns: Columns | None = None
) -> tuple[LabelledItem | ItemError, ...]:
    """Reads all records.

    Args:
        path: as of `read_items`.
        options: what the records may name as their images.
        columns: which field of the file is meant by a name of `LABELLED_FIELDS`.

    Raises:
        DataError: the file cannot be read, has nothing to do or ids used twice. What is wrong with one record becomes
            an ItemError in its place.
        ResourceError: it is parquet or Arrow, and the library that reads them is not installed.
    """
    file = data_file(path)
    items = tuple(_read_item(record, file, options) for record in unread_records(file, columns=columns or {}))
    require_own_ids([item.id for item in items], file)
    return items


def _read_item(unread: UnreadRecord, file: str, options: ItemOptions) -> LabelledItem | ItemError:
    label = unread.label.replace(" ", "-")
    item_id: str | int = label
    line = int(unread.label.rpartition(" ")[2])
    try:
        record = unread.read()
        item_id = record.id_or(label)  # before the rest, whose errors then bear it
        image = picture_of(record, root_of(file), options, is_metadata=unread.is_metadata, takes_all=True)
        if image is None:
            advice = "Add it, or say which it is: --columns image=NAME"
            raise no_picture(record, is_metadata=unread.is_metadata, advice=advice)
        has_question = bool({"question", "instruction"} & record.fields.keys())
        question = record.question() if has_question else None
        return LabelledItem(id=item_id, image=image, question=question, answers=_answers(record), line=line)
    except InputError as error:
        return ItemError(id=item_id, line=line, error=error)


def _answers(record: UserRecord) -> tuple[str, ...]:
    """Returns the right answers; a table's cell may hold several as a JSON list.

    Raises:
        DataError: there is none, or one is neither text nor number.
        TextError: one is blank.
    """
    name = next((name for name in ("answer", "answers") if record.fields.get(name) is not None), None)
    if name is None:
        why = f"field 'answer' is missing; it has {shortened(', '.join(record.fields), 60)}"
        advice = "Add it, or say which it is: --columns answer=NAME"
        raise record.error(why, code="missing_field", advice=advice)
    value = record.fields[name]
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError):  # an answer may begin with a bracket
            value = json.loads(value)
    entries = value if isinstance(value, list) else [value]
    if not entries:
        raise record.error(f"field '{name}' is an empty list")
    return tuple(_answer(entry, name, record) for entry in entries)


def _answer(value: object, name: str, record: UserRecord) -> str:
    if isinstance(value, dict):  # VQA's, with one entry per person that was asked
        value = value.get("answer")
    if isinstance(value, float) and math.isfinite(value):
        value = int(value) if value.is_integer() else value  # pandas makes 3.0 of 3 where another row has none
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value:
        raise record.error(f"field '{name}' is neither text nor number, nor a list of them")
    return check_instruction(str(value), what=record.place)
