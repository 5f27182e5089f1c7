"""JSON and tables that somebody else wrote: parsed strictly, their fields read by name and type.

In: the bytes of a line or file, or what a table's reader gave. Out: fields of the type that the caller names, or a
DataError that says which field of which record in which file holds what it should not. A value is converted only where
real files differ in spelling: ids and places are whole numbers in some and texts in others.

`json` alone is too generous: of a field that is there twice it keeps the last, silently, and it accepts NaN. A
library for data sets is no way out: `datasets` retypes values ("2" becomes 2, "null" None, "true" True), and an answer
is a text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NoReturn, Self, TypeVar

from vlinstruct.errors import DataError, shortened

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ForeignRecord:
    """An object of a file that this package did not write.

    A room that reads other files than a user's items derives a class with an action and an advice of its own.

    Args:
        file: where it stands.
        label: what it is called there, e.g. `line 7`; empty for the file's one object.
        fields: what it holds.

    >>> ForeignRecord(file="a.jsonl", label="line 7", fields={"id": 3}).key("id")
    '3'
    """

    ACTION: ClassVar[str] = "cannot use item"
    ADVICE: ClassVar[str] = "Correct the line"
    ADVICE_IF_MISSING: ClassVar[str | None] = None  # None: ADVICE

    file: str
    label: str
    fields: Mapping[str, object]

    @classmethod
    def error_at(cls, place: str, why: str, *, code: str = "bad_field", advice: str | None = None) -> DataError:
        """Returns the error of a record that could not even be parsed; `place` names its file and record."""
        return DataError.at(cls.ACTION, place, why, advice or cls.ADVICE, code=code)

    @property
    def place(self) -> str:
        """What messages call it."""
        return f"{self.file} {self.label}".rstrip()

    def error(self, why: str, *, code: str = "bad_field", advice: str | None = None) -> DataError:
        """Returns the error that says why this record cannot be used."""
        return self.error_at(self.place, why, code=code, advice=advice)

    def text(self, name: str, *, may_be_empty: bool = False) -> str:
        """Returns a field that holds text."""
        return self._unicode(self.raw_text(name, may_be_empty=may_be_empty), name)

    def raw_text(self, name: str, *, may_be_empty: bool = False) -> str:
        """Returns a field that holds text, which may not be valid Unicode.

        That is what a path needs: half a surrogate pair is how Python spells a byte of a file name that is no UTF-8.
        """
        value = self._value(name)
        if not isinstance(value, str):
            raise self.error(f"field '{name}' is no text")
        if not value and not may_be_empty:
            raise self.error(f"field '{name}' is empty")
        return value

    def key(self, name: str) -> str:
        """Returns a field that names something: a text, or a whole number as one."""
        value = self._value(name)
        return str(value) if is_whole(value) else self.text(name)

    def index(self, name: str, count: int) -> int:
        """Returns a field that holds one of `count` places, from 0; some files write them as texts (IconQA)."""
        value = self._value(name)
        if isinstance(value, str) and value.isdecimal() and value.isascii():
            value = int(value)
        if not isinstance(value, int) or not is_whole(value):
            raise self.error(f"field '{name}' is no whole number")
        if not 0 <= value < count:
            raise self.error(f"field '{name}' is {value}, of 0 to {count - 1}", code="out_of_range")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Returns a field that holds a list of texts, some of them perhaps empty."""
        return tuple(self._unicode(text, name) for text in self._list(name, str, "texts"))

    def indices(self, name: str, count: int) -> tuple[int, ...]:
        """Returns a field that holds a list of places, from 0 to `count` - 1."""
        values = self._list(name, int, "whole numbers")
        if outside := [value for value in values if not 0 <= value < count]:
            raise self.error(f"field '{name}' holds {outside[0]}, of 0 to {count - 1}", code="out_of_range")
        return tuple(values)

    def record(self, name: str) -> Self:
        """Returns a field that holds an object."""
        value = self._value(name)
        if not isinstance(value, dict):
            raise self.error(f"field '{name}' is no object")
        return replace(self, fields=value)

    def records(self, name: str, called: str) -> Iterator[Self]:
        """Yields the objects of a list, called e.g. `image 1`, `image 2`."""
        for number, fields in enumerate(self._list(name, dict, "objects"), start=1):
            yield replace(self, label=f"{self.label} {called} {number}".lstrip(), fields=fields)

    def entry(self, name: str, called: str) -> Self:
        """Returns the object that is kept under a key."""
        label = f"{called} {shortened(name, 40)}"
        fields = self.fields.get(name)
        if not isinstance(fields, dict):
            raise self.error_at(f"{self.file} {label}", "it is missing or no object", code="missing_field")
        return replace(self, label=label, fields=fields)

    def _value(self, name: str) -> object:
        if name not in self.fields:
            raise self.error(f"field '{name}' is missing", code="missing_field", advice=self.ADVICE_IF_MISSING)
        return self.fields[name]

    def _list(self, name: str, kind: type[T], called: str) -> list[T]:
        value = self._value(name)
        entries = value if isinstance(value, list) else []
        # Python's booleans are whole numbers, JSON's are not.
        of_kind = [entry for entry in entries if isinstance(entry, kind) and not isinstance(entry, bool)]
        if not isinstance(value, list) or len(of_kind) < len(value):
            raise self.error(f"field '{name}' is no list of {called}")
        return of_kind

    def _unicode(self, text: str, name: str) -> str:
        # JSON can spell half a surrogate pair, which no tokenizer and no UTF-8 file takes.
        if not is_unicode(text):
            raise self.error(f"field '{name}' is not valid Unicode", code="text_not_unicode")
        return text


def parse_strictly(content: bytes, place: str) -> object:
    """Parses JSON: UTF-8, no field twice, no NaN, no number or nesting without end.

    Raises:
        DataError: it is anything else.
    """
    problem = ForeignRecord.error_at
    try:
        # Without the line's end, behind which json would count the column of a text that breaks off from 1 again.
        text = content.decode("utf-8").rstrip("\r\n")
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_fields)
    except UnicodeDecodeError as error:
        raise problem(place, "it is not UTF-8", code="encoding", advice="Save the file as UTF-8") from error
    except RecursionError as error:
        raise problem(place, "it is nested too deeply", code="bad_json") from error
    except json.JSONDecodeError as error:
        why = f"not valid JSON at column {error.colno} ({error.msg.removesuffix(':')})"
        raise problem(place, why, code="bad_json") from error
    except _FieldProblem as error:
        raise problem(place, str(error), code="bad_json") from error
    except ValueError as error:  # Python reads whole numbers of up to 4,300 digits
        raise problem(place, "a number has too many digits", code="bad_json") from error


class _FieldProblem(ValueError):
    """A reason to refuse valid JSON; json.loads lets errors of its hooks pass as they are."""


def _refuse_constant(name: str) -> NoReturn:
    raise _FieldProblem(f"{name} is no JSON number")


def _unique_fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise _FieldProblem(f"field {shortened(repeated, 40)!r} is given twice")
    return fields


def as_object(value: object, place: str) -> dict[str, object]:
    """Returns a parsed value, which must be a JSON object."""
    if not isinstance(value, dict):
        raise ForeignRecord.error_at(place, "it is no JSON object", code="bad_json")
    return value


def parse_document(content: bytes, place: str, refuse: Callable[[json.JSONDecodeError, str], DataError]) -> object:
    """Parses a file that is one JSON text, as strictly as a line.

    `parse_strictly` says the column only, since what it mostly reads is one line.

    Args:
        content: the file's bytes.
        place: what messages call it.
        refuse: makes the error of a text that is no JSON, given where it breaks off and json's words for it.

    Raises:
        DataError: it is no strict JSON.
    """
    try:
        return parse_strictly(content, place)
    except DataError as error:
        cause = error.__cause__
        if not isinstance(cause, json.JSONDecodeError):
            raise
        raise refuse(cause, cause.msg.removesuffix(":")) from cause


def is_whole(value: object) -> bool:
    """Says whether a value is a whole number; to Python a boolean is one.

    >>> is_whole(3), is_whole(True)
    (True, False)
    """
    return isinstance(value, int) and not isinstance(value, bool)


def is_unicode(text: str) -> bool:
    """Says whether a text can be encoded: it holds no half of a surrogate pair."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
