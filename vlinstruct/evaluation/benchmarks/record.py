"""A record of an annotation file: its fields are asked for by name and type.

What is wrong with one is said with its file and record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from vlinstruct.errors import DataError, shortened

T = TypeVar("T")
WHAT = "cannot use annotations"
_ADVICE = "Compare the file with `vlinstruct evaluate --list`, or get it again"


def bad_annotation(place: str, why: str, *, code: str = "bad_field") -> DataError:
    """Returns the error of an annotation that cannot be used; `place` names its file and record."""
    return DataError.at(WHAT, place, why, _ADVICE, code=code)


@dataclass(frozen=True, kw_only=True)
class Record:
    """An object of an annotation file.

    Args:
        file: where it stands.
        label: what it is called there, e.g. `line 7`; empty for the file's one object.
        fields: what it holds.
    """

    file: str
    label: str
    fields: Mapping[str, object]

    @property
    def place(self) -> str:
        """What messages call it."""
        return f"{self.file} {self.label}".rstrip()

    def text(self, name: str, *, may_be_empty: bool = False) -> str:
        """Returns a field that holds text."""
        value = self._value(name)
        if not isinstance(value, str) or not (value or may_be_empty):
            raise self._no(name, "text")
        return self._unicode(value, name)

    def key(self, name: str) -> str:
        """Returns a field that names something: a text, or a whole number as one."""
        value = self._value(name)
        return str(value) if _is_whole(value) else self.text(name)

    def index(self, name: str, count: int) -> int:
        """Returns a field that holds one of `count` places, from 0; IconQA writes some of them as texts."""
        value = self._value(name)
        if isinstance(value, str) and value.isdecimal() and value.isascii():
            value = int(value)
        if not isinstance(value, int) or not _is_whole(value):
            raise self._no(name, "whole number")
        if not 0 <= value < count:
            why = f"field '{name}' is {value}, of 0 to {count - 1}"
            raise bad_annotation(self.place, why, code="out_of_range")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Returns a field that holds a list of texts, some of them perhaps empty."""
        return tuple(self._unicode(one, name) for one in self._list(name, str, "texts"))

    def indices(self, name: str, count: int) -> tuple[int, ...]:
        """Returns a field that holds a list of places, from 0 to `count` - 1."""
        values = self._list(name, int, "whole numbers")
        if outside := [value for value in values if not 0 <= value < count]:
            why = f"field '{name}' holds {outside[0]}, of 0 to {count - 1}"
            raise bad_annotation(self.place, why, code="out_of_range")
        return tuple(values)

    def record(self, name: str) -> Record:
        """Returns a field that holds an object."""
        value = self._value(name)
        if not isinstance(value, dict):
            raise self._no(name, "object")
        return Record(file=self.file, label=self.label, fields=value)

    def records(self, name: str, called: str) -> Iterator[Record]:
        """Yields the objects of a list, called e.g. `image 1`, `image 2`."""
        for number, fields in enumerate(self._list(name, dict, "objects"), start=1):
            yield Record(file=self.file, label=f"{self.label} {called} {number}".lstrip(), fields=fields)

    def entry(self, name: str, called: str) -> Record:
        """Returns the object that is kept under a key."""
        label = f"{called} {shortened(name, 40)}"
        if not isinstance(self.fields.get(name), dict):
            raise bad_annotation(f"{self.file} {label}", "it is missing or no object", code="missing_field")
        return Record(file=self.file, label=label, fields=self.record(name).fields)

    def _value(self, name: str) -> object:
        if name not in self.fields:
            raise bad_annotation(self.place, f"field '{name}' is missing", code="missing_field")
        return self.fields[name]

    def _list(self, name: str, kind: type[T], called: str) -> list[T]:
        value = self._value(name)
        if not isinstance(value, list):
            raise self._no(name, f"list of {called}")
        found = [one for one in value if isinstance(one, kind) and not isinstance(one, bool)]
        if len(found) < len(value):
            raise self._no(name, f"list of {called}")
        return found

    def _no(self, name: str, kind: str) -> DataError:
        return bad_annotation(self.place, f"field '{name}' is no {kind}")

    def _unicode(self, text: str, name: str) -> str:
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise bad_annotation(self.place, f"field '{name}' is not valid Unicode", code="text_not_unicode")
        return text


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
