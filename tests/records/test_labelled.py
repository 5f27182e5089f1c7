"""Labelled items: what may stand for the right answers, and what is wrong with a record is told of that record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlinstruct.errors import DataError
from vlinstruct.records.items import ItemError
from vlinstruct.records.labelled import LabelledItem, read_labelled


def read(folder: Path, *records: object) -> list[LabelledItem | ItemError]:
    (folder / "a.png").write_bytes(b"")
    path = folder / "labelled.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records))
    return list(read_labelled(path))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("a cat", ("a cat",)),
        ("  {0} ", ("  {0} ",)),
        (3, ("3",)),
        (3.0, ("3",)),
        (2.5, ("2.5",)),
        (["a cat", 4], ("a cat", "4")),
        ('["a cat", "cat"]', ("a cat", "cat")),
        ("[sic] a cat", ("[sic] a cat",)),
        ([{"answer": "yes", "answer_confidence": "maybe"}, {"answer": "no"}], ("yes", "no")),
    ],
)
def test_an_answer_is_a_text_a_number_or_several_of_them(
    tmp_path: Path, answer: object, expected: tuple[str, ...]
) -> None:
    for name in ("answer", "answers"):
        (item,) = read(tmp_path, {"image": "a.png", name: answer})
        assert isinstance(item, LabelledItem)
        assert item.answers == expected
        assert item.question is None


@pytest.mark.parametrize("answer", [None, [], [[]], True, {}, {"text": "a"}, "", "  ", float("nan"), ["a", None]])
def test_what_is_no_answer_is_told_of_its_line_and_the_others_stay(tmp_path: Path, answer: object) -> None:
    good = {"image": "a.png", "answer": "yes", "question": "is it?", "id": "first"}
    first, bad, last = read(tmp_path, good, {"image": "a.png", "answer": answer}, {**good, "id": 7})
    assert isinstance(bad, ItemError)
    assert (bad.id, bad.line) == ("line-2", 2)
    assert "line 2" in str(bad.error)
    assert [(item.id, item.question) for item in (first, last) if isinstance(item, LabelledItem)] == [
        ("first", "is it?"),
        (7, "is it?"),
    ]


def test_a_file_without_answers_says_which_fields_it_has(tmp_path: Path) -> None:
    (item,) = read(tmp_path, {"image": "a.png", "label": "yes"})
    assert isinstance(item, ItemError)
    assert "it has image, label" in str(item.error)
    assert "--columns answer=NAME" in str(item.error)


def test_two_items_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="same"):
        read(tmp_path, *[{"image": "a.png", "answer": "yes", "id": "same"}] * 2)


def test_a_table_names_its_columns(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "labelled.csv").write_text('file,q,label\na.png,is it?,"[""yes"", ""yeah""]"\n')
    columns = {"image": "file", "question": "q", "answer": "label"}
    (item,) = read_labelled(tmp_path / "labelled.csv", columns=columns)
    assert isinstance(item, LabelledItem)
    assert (item.question, item.answers) == ("is it?", ("yes", "yeah"))
