"""A foreign record gives a field of the type that was asked for, or says which field of which record is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from vlinstruct.errors import DataError
from vlinstruct.records.foreign import ForeignRecord, parse_document

FIELDS: dict[str, Any] = {
    "text": "a",
    "empty": "",
    "number": 3,
    "digits": "3",
    "flag": True,
    "texts": ["a", ""],
    "places": [0, 2],
    "object": {"text": "b"},
    "objects": [{"text": "c"}, {"text": "d"}],
    "mixed": ["a", 1],
    "surrogate": "\ud800",
}
RECORD = ForeignRecord(file="a.json", label="line 7", fields=FIELDS)


def test_fields_come_as_what_they_are_asked_for() -> None:
    assert RECORD.text("text") == "a"
    assert RECORD.text("empty", may_be_empty=True) == ""
    assert (RECORD.key("number"), RECORD.key("text")) == ("3", "a")
    assert (RECORD.index("number", 4), RECORD.index("digits", 4)) == (3, 3)
    assert RECORD.texts("texts") == ("a", "")
    assert RECORD.indices("places", 3) == (0, 2)
    assert RECORD.record("object").text("text") == "b"
    assert [record.text("text") for record in RECORD.records("objects", "part")] == ["c", "d"]


@pytest.mark.parametrize(
    ("ask", "code", "words"),
    [
        (lambda record: record.text("none"), "missing_field", "field 'none' is missing"),
        (lambda record: record.text("empty"), "bad_field", "field 'empty' is empty"),
        (lambda record: record.text("number"), "bad_field", "field 'number' is no text"),
        (lambda record: record.text("surrogate"), "text_not_unicode", "field 'surrogate' is not valid Unicode"),
        (lambda record: record.key("flag"), "bad_field", "field 'flag' is no text"),
        (lambda record: record.index("flag", 2), "bad_field", "field 'flag' is no whole number"),
        (lambda record: record.index("number", 3), "out_of_range", "field 'number' is 3, of 0 to 2"),
        (lambda record: record.texts("text"), "bad_field", "field 'text' is no list of texts"),
        (lambda record: record.texts("mixed"), "bad_field", "field 'mixed' is no list of texts"),
        (lambda record: record.indices("places", 2), "out_of_range", "field 'places' holds 2, of 0 to 1"),
        (lambda record: record.record("texts"), "bad_field", "field 'texts' is no object"),
    ],
)
def test_what_is_wrong_names_the_field_and_the_place(
    ask: Callable[[ForeignRecord], object], code: str, words: str
) -> None:
    with pytest.raises(DataError) as caught:
        ask(RECORD)
    assert caught.value.code == code
    assert caught.value.message == f"cannot use item (a.json line 7): {words}. Correct the line"


def test_a_record_inside_one_has_a_place_of_its_own_and_its_rooms_words() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Mine(ForeignRecord):
        ACTION: ClassVar[str] = "cannot use my file"
        ADVICE: ClassVar[str] = "Get it again"

    record = Mine(file="a.json", label="", fields=FIELDS)
    _, second = record.records("objects", "part")
    assert second.place == "a.json part 2"
    assert record.error("it is bad").message == "cannot use my file (a.json): it is bad. Get it again"
    with pytest.raises(DataError, match=r"cannot use my file \(a\.json part gone\): it is missing or no object"):
        record.entry("gone", "part")
    assert record.entry("object", "part").place == "a.json part object"


def test_where_a_document_breaks_off_is_said_in_its_readers_words() -> None:
    def refuse(cause: Any, words: str) -> DataError:
        return DataError(f"line {cause.lineno} column {cause.colno}: {words}")

    assert parse_document(b'{"a": [1]}', "a.json", refuse) == {"a": [1]}
    with pytest.raises(DataError, match="line 2 column 1: Expecting value"):
        parse_document(b"[1,\n]", "a.json", refuse)
    with pytest.raises(DataError, match="NaN is no JSON number"):
        parse_document(b"[NaN]", "a.json", refuse)
