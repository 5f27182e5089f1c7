"""Reads the items of `ask --data`: a question about a picture each, in any of the forms of `input.py`.

A record of items: {"image": "cats/1.jpg", "question": "how many?", "id": "q7", "choices": ["2", "3"]}; paths start from
the file's own folder, `video` or `audio` may stand in place of `image`, `instruction` in place of `question`, `id` and
`choices` may be left out, other fields are ignored. Where several instructions are scored the field may be a list.

One bad record never stops the rest: it becomes an ItemError in its place, and a batch writes it as a record. Ids that
are used twice do stop, before any work: results could not be told apart, nor resumed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from vlinstruct.errors import DataError, InputError, shortened
from vlinstruct.files import PathLike
from vlinstruct.records.columns import Columns
from vlinstruct.records.foreign import is_whole
from vlinstruct.records.input import UnreadRecord, data_file, root_of, unread_records
from vlinstruct.records.lines import ItemOptions, UserRecord
from vlinstruct.records.pictures import Picture, no_picture, picture_of
from vlinstruct.text import check_instruction

ITEM_FIELDS = ("image", "question", "id", "choices")
_MEANT = {"image", "images", "file_name", "question", "instruction", "choices"}  # what another spelling may mean
_LIKENESS = 0.75  # "choises" and "qestion" are that like what was meant, "caption" and "options" are not
DEFAULT_ITEM_OPTIONS = ItemOptions()


@dataclass(frozen=True, kw_only=True)
class Item:
    """A record that can be used.

    Args:
        id: the record's `id`, as given (a number stays a number), or `line-7`.
        image: the file, the table's picture, or the URL where these are allowed.
        question: the text, byte for byte; the first one of a list.
        line: the number of the line, row or record, from 1.
        more_questions: the others of a list.
        choices: answers to rank; empty where it has none of its own.
    """

    id: str | int
    image: Picture
    question: str
    line: int
    more_questions: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ItemError:
    """A record that cannot be used.

    Args:
        id: the record's `id` where it could be read, else `line-7`.
        line: the number of the line, row or record, from 1.
        error: why.
    """

    id: str | int
    line: int
    error: InputError


def read_items(
    path: PathLike,
    *,
    options: ItemOptions = DEFAULT_ITEM_OPTIONS,
    columns: Columns | None = None,
    takes_lists: bool = False,
    notify: Callable[[str], None] = lambda notice: None,
) -> tuple[Item | ItemError, ...]:
    """Reads all records, so that ids used twice are known before any work starts.

    Args:
        path: JSON lines, one JSON list, a CSV, parquet or Arrow table, or a folder with its metadata or shards.
        options: what the records may name as their images.
        columns: which field of the file is meant by a name of `ITEM_FIELDS`.
        takes_lists: whether a record may hold several questions in a list, which a table's cell holds as JSON.
        notify: is told of fields that look like misspelt ones.

    Raises:
        DataError: the file cannot be read, has nothing to do (`nothing_to_do`) or ids used twice (`duplicate_ids`).
            What is wrong with one record becomes an ItemError in its place.
        ResourceError: it is parquet or Arrow, and the library that reads them is not installed.
    """
    file = data_file(path)
    unused: Counter[tuple[str, str]] = Counter()
    records = unread_records(file, columns=columns or {})
    items = tuple(_read_item(record, file, options, unused, takes_lists=takes_lists) for record in records)
    for (name, meant), count in unused.items():
        notify(
            f"field '{shortened(name, 40)}' is not used ({count:,} of {len(items):,} items); did you mean '{meant}'?"
        )
    require_own_ids([item.id for item in items], file)
    return items


def require_own_ids(ids: Iterable[str | int], file: str) -> None:
    """Refuses a file in which two records have one id.

    Raises:
        DataError: some have (`duplicate_ids`).
    """
    # 7 and "7" would be one name in many readers' eyes.
    counts = Counter(map(str, ids))
    if repeated := [name for name, count in counts.items() if count > 1]:
        first = ", ".join(shortened(name, 20) for name in repeated[:5])
        why = f"{len(repeated)} ids are used twice: {first}"
        raise DataError.at("cannot read items", file, why, "Give every line its own id", code="duplicate_ids")


def _read_item(
    unread: UnreadRecord, file: str, options: ItemOptions, unused: Counter[tuple[str, str]], *, takes_lists: bool
) -> Item | ItemError:
    label = unread.label.replace(" ", "-")
    item_id: str | int = label
    line = int(unread.label.rpartition(" ")[2])
    try:
        record = unread.read()
        unused.update(_misspelt(record))
        item_id = record.id_or(label)  # before the rest, whose errors then bear it
        image = picture_of(record, root_of(file), options, is_metadata=unread.is_metadata, takes_all=True)
        if image is None:
            advice = "Add it, or say which it is: --columns image=NAME"
            raise no_picture(record, is_metadata=unread.is_metadata, advice=advice)
        choices = _choices(record) if record.fields.get("choices") is not None else ()
        if not {"question", "instruction"} & record.fields.keys():
            why = f"field 'question' is missing; it has {shortened(', '.join(record.fields), 60)}"
            advice = "Add it, or say which it is: --columns question=NAME"
            raise record.error(why, code="missing_field", advice=advice)
        question, *others = _questions(record) if takes_lists else (record.question(),)
        return Item(
            id=item_id, image=image, question=question, line=line, more_questions=tuple(others), choices=choices
        )
    except InputError as error:
        return ItemError(id=item_id, line=line, error=error)


def _questions(record: UserRecord) -> tuple[str, ...]:
    """Returns the one question, or those of a list.

    Raises:
        DataError: the list is empty, or holds something else than texts.
        TextError: a model cannot be asked one of them.
    """
    name = "instruction" if "instruction" in record.fields else "question"
    value = _listed(record, name)
    if not isinstance(value, list):
        return (record.question(),)
    if not value or not all(isinstance(entry, str) for entry in value):
        raise record.error(f"field '{name}' is no list of texts", advice='Write ["what?", "how many?"]')
    return tuple(check_instruction(entry, what=record.place) for entry in value)


def _choices(record: UserRecord) -> tuple[str, ...]:
    """Returns the answers to rank.

    Raises:
        DataError: they are no list of texts, or not two or more different ones.
        TextError: a model cannot be asked one of them.
    """
    value = _listed(record, "choices")
    if isinstance(value, str) and value.lstrip().startswith("["):
        raise record.error("field 'choices' is no JSON list")
    if isinstance(value, list):
        value = [str(entry) if is_whole(entry) else entry for entry in value]
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise record.error("field 'choices' is no list of texts", advice='Write ["yes", "no"]')
    if len(set(value)) < max(2, len(value)):
        raise record.error("field 'choices' does not hold two or more different answers")
    return tuple(check_instruction(choice, what=record.place) for choice in value)


def _listed(record: UserRecord, name: str) -> object:
    """Returns a field's value, of a text that is a JSON list the list: so a table's cell holds one."""
    value = record.fields[name]
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _misspelt(record: UserRecord) -> Iterator[tuple[str, str]]:
    """Yields each field that is ignored and looks like one that the record lacks, with that one."""
    lacking = [name for name in _MEANT if name not in record.fields]
    for name in record.fields.keys() - _MEANT - {"id"}:
        if near := get_close_matches(name.lower(), lacking, n=1, cutoff=_LIKENESS):
            yield name, near[0]
