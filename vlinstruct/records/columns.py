"""Which field of a file is meant by which name: `--columns image=file,question=q,answer=a`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches

from vlinstruct.errors import DataError, UsageError, shortened
from vlinstruct.records.lines import UserRecord

Columns = Mapping[str, str]
"""Our name of a field -> the file's."""

# What else would say the same as a field that is named; what is named wins.
_RIVALS = {
    "image": ("images", "file_name"),
    "question": ("instruction", "conversations", "messages"),
    "answer": ("answers", "conversations", "messages"),
}


def columns_of(text: str | None, allowed: Sequence[str]) -> Columns:
    """Reads what was typed.

    Args:
        text: `image=file,question=q`; None for none.
        allowed: our names that may be given.

    Raises:
        UsageError: it is anything else.

    >>> columns_of("image=file,question=q", ["image", "question"])
    {'image': 'file', 'question': 'q'}
    """
    pairs = [pair.partition("=") for pair in (text or "").split(",") if text is not None]
    columns = {name.strip(): column.strip() for name, _, column in pairs}
    if not all(columns.values()) or not all(columns) or len(columns) < len(pairs):
        raise UsageError("--columns needs pairs, each name once: --columns image=file,question=q")
    require_names(columns, allowed)
    return columns


def require_names(columns: Columns, allowed: Sequence[str]) -> None:
    """Refuses names that no record has.

    Raises:
        UsageError: there is one.
    """
    if unknown := [name for name in columns if name not in allowed]:
        near = get_close_matches(unknown[0], allowed, n=1)
        guess = f"; did you mean {near[0]}?" if near else f", which may be {', '.join(allowed)}"
        raise UsageError(f"--columns names '{shortened(unknown[0], 40)}' in front of '='{guess}")


def require_columns(names: Collection[str], columns: Columns, file: str) -> None:
    """Refuses columns that a table does not have.

    Raises:
        DataError: it lacks one.
    """
    if missing := [column for column in columns.values() if column not in names]:
        why = f"there is no column '{shortened(missing[0], 40)}'; there are {shortened(', '.join(names), 80)}"
        raise DataError.at("cannot read data", file, why, "Correct --columns", code="missing_field")


def renamed(record: UserRecord, columns: Columns) -> Mapping[str, object]:
    """Returns a record's fields by our names.

    A field that the record lacks is missing by its own name, apart from the picture's: without one it is a text alone.

    Raises:
        DataError: it lacks one.
    """
    fields = record.fields
    for name, column in columns.items():
        if column not in fields and name in ("question", "answer"):
            why = f"field '{shortened(column, 40)}' is missing; it has {shortened(', '.join(fields), 80)}"
            raise record.error(why, code="missing_field", advice="Correct --columns")
    left_out = {*columns.values(), *(rival for name in columns for rival in _RIVALS.get(name, ()))}
    kept = {name: value for name, value in fields.items() if name not in left_out}
    return {**kept, **{name: fields[column] for name, column in columns.items() if column in fields}}
