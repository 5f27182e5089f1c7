"""Records that somebody else wrote: their fields are asked for by name and type, and what is wrong names its place.

In: what a JSON or table reader gave. Out: fields of the type that was asked for, or a DataError that says in which file
and record which field holds what it should not. A value is never converted but where real files differ in a spelling:
ids and places are whole numbers in some and texts in others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self, TypeVar

from vlinstruct.errors import DataError, shortened
from vlinstruct.records.lines import parse_strictly

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ForeignRecord:
    """An object of a file that this package did not write.

    A room that reads other files than items derives a class with an action and an advice of its own.

    Args:
        file: where it stands.
        label: what it is called there, e.g. `line 7`; empty for the file's one object.
        fields: what it holds.

    >>> ForeignRecord(file="a.jsonl", label="line 7", fields={"id": 3}).key("id")
    '3'
    """

    ACTION: ClassVar[str] = "cannot use item"
    ADVICE: ClassVar[str] = "Correct the line"

    file: str
    label: str
    fields: Mapping[str, object]

    @classmethod
    def error_at(cls, place: str, why: str, *, code: str = "bad_field") -> DataError:
        """Returns the error of a record that cannot be used; `place` names its file and record."""
        return DataError.at(cls.ACTION, place, why, cls.ADVICE, code=code)

    @property
    def place(self) -> str:
        """What messages call it."""
        return f"{self.file} {self.label}".rstrip()

    def error(self, why: str, *, code: str = "bad_field") -> DataError:
        """Returns the error that says why this record cannot be used."""
        return self.error_at(self.place, why, code=code)

    def text(self, name: str, *, may_be_empty: bool = False) -> str:
        """Returns a field that holds text."""
        value = self._value(name)
        if not isinstance(value, str) or not (value or may_be_empty):
            raise self.error(f"field '{name}' is no text")
        return self._unicode(value, name)

    def key(self, name: str) -> str:
        """Returns a field that names something: a text, or a whole number as one."""
        value = self._value(name)
        return str(value) if _is_whole(value) else self.text(name)

    def index(self, name: str, count: int) -> int:
        """Returns a field that holds one of `count` places, from 0; some files write them as texts (IconQA)."""
        value = self._value(name)
        if isinstance(value, str) and value.isdecimal() and value.isascii():
            value = int(value)
        if not isinstance(value, int) or not _is_whole(value):
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
            raise self.error(f"field '{name}' is missing", code="missing_field")
        return self.fields[name]

    def _list(self, name: str, kind: type[T], called: str) -> list[T]:
        value = self._value(name)
        entries = value if isinstance(value, list) else []
        of_kind = [entry for entry in entries if isinstance(entry, kind) and not isinstance(entry, bool)]
        if not isinstance(value, list) or len(of_kind) < len(value):
            raise self.error(f"field '{name}' is no list of {called}")
        return of_kind

    def _unicode(self, text: str, name: str) -> str:
        # JSON can spell half a surrogate pair, which no tokenizer and no UTF-8 file takes.
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise self.error(f"field '{name}' is not valid Unicode", code="text_not_unicode")
        return text


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


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
