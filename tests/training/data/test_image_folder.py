"""Image folders with metadata, as Hugging Face's `imagefolder` has them, and CSV tables."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlinstruct.errors import DataError, VlinstructError
from vlinstruct.training.data.conversations import TrainingSample, read_conversations
from vlinstruct.training.data.fields import CAPTION_INSTRUCTION

from .checking import problems_of

Refused = Callable[..., VlinstructError]
ROWS = [
    {"file_name": "cats/1.png", "question": 'who,\n"Ann"?', "answer": "2", "id": "a"},
    {"file_name": "2.png", "question": "é, 猫?", "answer": "yes", "id": "b"},
]


def as_jsonl(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "metadata.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def as_csv(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "metadata.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def table(folder: Path, *lines: str | bytes, end: bytes = b"\n") -> Path:
    path = folder / "metadata.csv"
    path.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + end for line in lines))
    return path


def read(path: Path) -> list[TrainingSample]:
    return read_conversations(path, image_root=None)


@pytest.mark.parametrize("write", [as_jsonl, as_csv])
def test_a_folder_is_read_as_its_metadata_from_its_own_place(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(tmp_path, ROWS)
    first, second = read(tmp_path)
    assert (first.id, first.image, first.instruction) == ("a", tmp_path / "cats/1.png", 'who,\n"Ann"?')
    assert (second.id, second.image, second.prompt, second.answer) == ("b", tmp_path / "2.png", "é, 猫?", "yes")
    assert read(path) == [first, second]
    (moved, _) = read_conversations(tmp_path, image_root="elsewhere")
    assert moved.image == Path("elsewhere/cats/1.png")


@pytest.mark.parametrize("write", [as_jsonl, as_csv])
@pytest.mark.parametrize("column", ["text", "caption"])
def test_a_caption_answers_the_papers_instruction(write: Callable[..., Path], column: str, tmp_path: Path) -> None:
    write(tmp_path, [{"file_name": "1.png", column: "a cat"}])
    (sample,) = read(tmp_path)
    assert CAPTION_INSTRUCTION == "A short image description:"
    assert (sample.instruction, sample.prompt, sample.answer) == (CAPTION_INSTRUCTION, CAPTION_INSTRUCTION, "a cat")


@pytest.mark.parametrize("write", [as_jsonl, as_csv])
@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"file_name": "1.png", "question": "q", "text": "x"}, "field 'answer' is missing"),
        ({"file_name": "1.png", "text": "x", "caption": "x"}, "both 'text' and 'caption' are given"),
        ({"file_name": "1.png", "label": "3"}, "it has no answer and no caption"),
        ({"file_name": "../1.png", "text": "x"}, "outside the image folder"),
    ],
)
def test_a_row_that_is_not_clear_is_refused(
    write: Callable[..., Path], row: dict[str, Any], why: str, tmp_path: Path, refused: Refused
) -> None:
    write(tmp_path, [row])
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert why in caught.value.message


@pytest.mark.parametrize("other", ["prompt", "output", "query", "response", "answers"])
def test_other_columns_beside_a_caption_change_nothing(other: str, tmp_path: Path) -> None:
    as_jsonl(tmp_path, [{"file_name": "1.png", "text": "a cat", other: "x"}])
    assert read(tmp_path)[0].answer == "a cat"
    as_jsonl(tmp_path, [{"file_name": "1.png", "text": "a cat", "prompt": "x", "response": "y"}])
    assert read(tmp_path)[0].answer == "a cat"


def test_metadata_without_a_picture_asks_for_file_name(tmp_path: Path, refused: Refused) -> None:
    as_jsonl(tmp_path, [{"text": "x"}])
    assert "field 'file_name' is missing" in refused(DataError, "missing_field", read, tmp_path).message


def test_a_folder_without_metadata_says_what_is_looked_for(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "1.png").touch()
    message = refused(DataError, "nothing_to_do", read, tmp_path).message
    assert "neither metadata.jsonl nor metadata.csv" in message
    with pytest.raises(DataError, match=r"neither metadata.jsonl nor metadata.csv"):
        list(problems_of(tmp_path, image_root=None))


def test_two_metadata_files_are_refused_and_either_can_be_named(tmp_path: Path, refused: Refused) -> None:
    paths = as_jsonl(tmp_path, ROWS), as_csv(tmp_path, ROWS)
    refused(DataError, "two_metadata_files", read, tmp_path)
    assert read(paths[0]) == read(paths[1])


def test_a_check_lists_the_folders_problems_by_line(tmp_path: Path, image_file: Callable[..., Path]) -> None:
    image_file("1.png")
    table(tmp_path, "file_name,text", "1.png,a cat", '1.png,"a\ncat"', "no.png,a cat", "1.png", "1.png,")
    lost, short, empty = problems_of(tmp_path, image_root=None)
    assert "metadata.csv line 5): " in lost
    assert "no such file" in lost
    assert "line 6): it has 1 cells, the header has 2" in short
    assert "line 7): it has no answer and no caption" in empty


def test_any_table_of_pictures_is_read(tmp_path: Path) -> None:
    path = tmp_path / "vqa.CSV"
    path.write_bytes(b"\xef\xbb\xbfimage, question ,answer\r\n1.png,q,2\r\n\r\n,,\r\n2.png,q,3\r\n")
    assert [(sample.id, sample.answer) for sample in read(path)] == [("line-2", "2"), ("line-5", "3")]


@pytest.mark.parametrize("column", ["image", "file_name"])
def test_a_row_without_a_picture_is_told_the_tables_own_word(column: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"line 3\\): field '{column}' is missing"):
        read(table(tmp_path, f"{column},text", "1.png,a cat", ",a dog"))


def test_an_empty_cell_is_a_field_that_is_not_given(tmp_path: Path) -> None:
    path = table(tmp_path, "id,file_name,instruction,question,answer", ",1.png,i,,2", ",1.png,,q,3")
    assert [(sample.id, sample.instruction) for sample in read(path)] == [("line-2", "i"), ("line-3", "q")]


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("file_name,text,text", "column 'text' is given twice"),
        ("file_name;text", "no column 'file_name'"),
        ('"file_name,text', "a quote is not closed"),
        (b"file_name,t\xe9xt", "it is not UTF-8"),
    ],
)
def test_a_header_that_cannot_be_used_is_refused(
    header: str | bytes, why: str, tmp_path: Path, refused: Refused
) -> None:
    with pytest.raises(DataError) as caught:
        read(table(tmp_path, header, "1.png,a cat"))
    assert why in caught.value.message


ROW_PROBLEMS = {
    "latin-1": ("1.png,caf\xe9".encode("latin-1"), "it is not UTF-8"),
    "long line": ("1.png,a" + ",a" * 600_000, "more than 1,000,000 bytes"),
    "long cell": ("1.png," + "a" * 200_000, "a cell is too long"),
    "after a quote": ('1.png,"a" b', "a quoted cell goes on after its quote"),
    "carriage return": ("1.png,a\rb", "a carriage return stands alone"),
    "more cells": ("1.png,a cat, a dog", "it has 3 cells, the header has 2"),
    "null": ("1\0.png,a cat", "NUL"),
}


@pytest.mark.parametrize("case", ROW_PROBLEMS)
def test_a_bad_row_is_named_and_the_rest_is_read(
    case: str, tmp_path: Path, image_file: Callable[..., Path], refused: Refused
) -> None:
    row, why = ROW_PROBLEMS[case]
    image_file("1.png")
    path = table(tmp_path, "file_name,text", "1.png,a cat", "1.png,\U0001f600", row, "1.png,a dog", "no.png,a dog")
    bad, lost = problems_of(path, image_root=None)
    assert why in bad
    assert "metadata.csv line 4): " in bad
    assert "metadata.csv line 6): " in lost
    with pytest.raises(DataError, match="line 4"):
        read(path)


@pytest.mark.slow
def test_an_open_quote_is_named_where_it_opens(tmp_path: Path) -> None:
    path = table(tmp_path, "file_name,text", '1.png,"a cat', *["1.png,a cat"] * 50_000)
    with pytest.raises(DataError, match="line 2") as caught:
        read(path)
    assert "its quote is not closed" in caught.value.message


def test_rows_of_many_lines_are_bounded_whatever_the_cell_limit_is(tmp_path: Path) -> None:
    path = table(tmp_path, "file_name,text", '1.png,"a cat', *["1.png,a cat"] * 100_000)
    limit = csv.field_size_limit(10_000_000)
    try:
        with pytest.raises(DataError, match="more than 1,000,000 bytes"):
            read(path)
    finally:
        csv.field_size_limit(limit)


def test_metadata_that_is_no_file_is_refused(tmp_path: Path, refused: Refused) -> None:
    os.mkfifo(tmp_path / "metadata.csv")
    refused(DataError, "data_not_regular", read, tmp_path)
