"""Training data: a bad record is named, a check lists all of them, a bad file is refused."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlinstruct.errors import DataError, VlinstructError
from vlinstruct.training.data.conversations import read_conversations

from .checking import problems_of

GOOD = {"image": "a.png", "question": "what?", "answer": "2"}
Lines = Callable[..., Path]
Reader = Callable[..., str]
Refused = Callable[..., VlinstructError]


@pytest.fixture
def data_file(tmp_path: Path, image_file: Callable[..., Path]) -> Lines:
    """Writes records or raw lines, next to the picture that they name."""
    image_file("a.png")

    def write(*lines: dict[str, Any] | bytes, name: str = "d.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(
            b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
        )
        return path

    return write


@pytest.fixture
def bad_line(data_file: Lines, refused: Refused) -> Reader:
    """Reads a file whose line 7 is the given one; reading it must fail, and a check list it alone."""

    def read(line: dict[str, Any] | bytes, code: str) -> str:
        path = data_file(*[GOOD] * 6, line, GOOD)
        error = refused(DataError, code, read_conversations, path, image_root=None)
        assert error.exit_code == 4
        assert "d.jsonl line 7): " in error.message
        assert list(problems_of(path, image_root=None)) == [error.message]
        return error.message

    return read


@pytest.fixture
def refused_file(refused: Refused) -> Reader:
    """Reads and checks a file that must be refused as a whole."""

    def read(path: Path, code: str) -> str:
        error = refused(DataError, code, read_conversations, path, image_root=None)
        checked = refused(DataError, code, lambda: list(problems_of(path, image_root=None)))
        assert checked.message == error.message
        return error.message

    return read


@pytest.mark.parametrize("field", GOOD)
def test_a_missing_field_is_named_with_its_line(field: str, bad_line: Reader) -> None:
    message = bad_line({name: value for name, value in GOOD.items() if name != field}, "missing_field")
    assert f"field '{field}' is missing" in message


@pytest.mark.parametrize("line", [b'{"image": "a.png", "quest', b"{'image': 1}", b"nonsense", b'"text"', b"3"])
def test_malformed_json_is_a_line_error(line: bytes, bad_line: Reader) -> None:
    bad_line(line, "bad_json")


def test_a_cut_last_line_is_named(data_file: Lines) -> None:
    path = data_file(GOOD, GOOD)
    os.truncate(path, path.stat().st_size - 10)
    (problem,) = problems_of(path, image_root=None)
    assert "line 2" in problem


def test_two_objects_on_a_line_are_an_error_and_a_list_is_read(data_file: Lines, bad_line: Reader) -> None:
    line = json.dumps(GOOD).encode()
    bad_line(line + b" " + line, "bad_json")
    samples = read_conversations(data_file(b"[", line + b",", line, b"]"), image_root=None)
    assert [sample.id for sample in samples] == ["record-1", "record-2"]


@pytest.mark.parametrize("opening", [b"", b"["])
def test_a_byte_order_mark_is_accepted(opening: bytes, data_file: Lines) -> None:
    closing = b"]" if opening else b""
    path = data_file(b"\xef\xbb\xbf" + opening + json.dumps(GOOD).encode() + closing)
    assert len(read_conversations(path, image_root=None)) == 1


def test_latin_1_is_a_line_error_and_utf_16_refused(bad_line: Reader, data_file: Lines, refused_file: Reader) -> None:
    line = json.dumps({**GOOD, "answer": "é"}, ensure_ascii=False)
    assert "it is not UTF-8" in bad_line(line.encode("latin-1"), "encoding")
    assert "UTF-16" in refused_file(data_file(line.encode("utf-16")), "encoding")


def test_duplicate_ids_are_refused_listing_five(data_file: Lines, refused: Refused) -> None:
    path = data_file(*[{**GOOD, "id": f"q{number % 7}\n"} for number in range(20)])
    error = refused(DataError, "duplicate_ids", read_conversations, path, image_root=None)
    assert "7 ids are used twice: q0\\n, q1\\n, q2\\n, q3\\n, q4\\n." in error.message
    problems = list(problems_of(path, image_root=None))
    assert len(problems) == 13
    assert "line 8): its id 'q0\\n' is that of line 1 too" in problems[0]


@pytest.mark.parametrize("ids", [(7, "7"), ("line-2", None)])
def test_ids_that_only_look_different_are_duplicates(ids: tuple[Any, Any], data_file: Lines) -> None:
    records = [GOOD if name is None else {**GOOD, "id": name} for name in ids]
    with pytest.raises(DataError, match="1 ids are used twice"):
        read_conversations(data_file(*records), image_root=None)


def test_llavas_ids_may_repeat_as_long_as_they_name_one_picture(data_file: Lines) -> None:
    turns = [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "so"}]
    record = {"id": "000000033471", "image": "a.png", "conversations": turns}
    assert len(read_conversations(data_file(record, record), image_root=None)) == 2
    with pytest.raises(DataError, match="1 ids are used twice: 000000033471"):
        read_conversations(data_file(record, record, {**record, "image": "b.png"}), image_root=None)


HOSTILE_JSON = {
    "duplicate key": (b'"image": "b.png"', "field 'image' is given twice"),
    "NaN": (b'"score": NaN', "NaN is no JSON number"),
    "Infinity": (b'"score": -Infinity', "-Infinity is no JSON number"),
    "digits": (b'"score": ' + b"9" * 5000, "a number has too many digits"),
    "lists": (b'"score": ' + b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    "objects": (b'"score": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize("case", HOSTILE_JSON)
def test_hostile_json_is_a_line_error_and_refuses_a_list(
    case: str, bad_line: Reader, data_file: Lines, refused_file: Reader
) -> None:
    field, why = HOSTILE_JSON[case]
    line = json.dumps(GOOD).encode()[:-1] + b", " + field + b"}"
    assert why in bad_line(line, "bad_json")
    assert why in refused_file(data_file(b"[" + line + b"]"), "bad_json")


def test_a_line_past_the_cap_is_refused_before_it_is_parsed(bad_line: Reader) -> None:
    assert "more than 1,000,000 bytes" in bad_line({**GOOD, "note": "x" * 10_000_000}, "line_too_long")


OUTSIDE = [
    "../../etc/passwd",
    "/etc/passwd",
    "FILE:///etc/passwd",
    "file://../x.png",
    "a/../../x.png",
    "..",
    "./../x.png",
]


@pytest.mark.parametrize("image", OUTSIDE)
def test_paths_that_lead_out_are_refused(image: str, bad_line: Reader) -> None:
    assert "allow it with --allow-outside" in bad_line({**GOOD, "image": image}, "image_outside")


@pytest.mark.parametrize("image", OUTSIDE)
@pytest.mark.parametrize("name", ["d.json", "metadata.jsonl", "metadata.csv"])
def test_no_format_and_no_image_root_lets_paths_out(
    image: str, name: str, data_file: Lines, tmp_path: Path, refused: Refused
) -> None:
    if name == "metadata.csv":
        path = data_file(b"file_name,text", image.encode() + b",a cat", name=name)
    elif name == "metadata.jsonl":
        path = data_file({"file_name": image, "text": "a cat"}, name=name)
    else:
        path = data_file(
            b"[" + json.dumps({**GOOD, "images": [image]}).encode().replace(b'"image": "a.png", ', b"") + b"]"
        )
    refused(DataError, "image_outside", read_conversations, path, image_root=tmp_path / "images")
    refused(DataError, "image_outside", read_conversations, path, image_root=None)


def test_paths_of_llava_start_from_the_image_root_and_are_opened_as_checked(data_file: Lines, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/ssl")
    records = [{**GOOD, "image": image} for image in ("coco/train2017/1.jpg", "link/../x.png")]
    samples = read_conversations(data_file(*records), image_root=tmp_path)
    assert [sample.image for sample in samples] == [tmp_path / "coco/train2017/1.jpg", tmp_path / "x.png"]


@pytest.mark.parametrize("image", ["https://example.org/a.png", "data:image/png;base64,AA"])
def test_urls_are_refused(image: str, bad_line: Reader) -> None:
    assert "--allow-urls" not in bad_line({**GOOD, "image": image}, "url_refused"), "finetune has no such option"


@pytest.mark.parametrize("content", [b"", b"\n \n\t\n", b"[]", b"\xef\xbb\xbf"])
def test_nothing_to_do(content: bytes, tmp_path: Path, refused_file: Reader) -> None:
    path = tmp_path / "d.json"
    path.write_bytes(content)
    assert "nothing to do" in refused_file(path, "nothing_to_do")


@pytest.mark.parametrize("content", [b"", b"file_name,text\n", b"\n\n", b",\n"])
def test_an_empty_table_and_an_empty_folder_have_nothing_to_do(
    content: bytes, tmp_path: Path, refused_file: Reader
) -> None:
    assert "nothing to do" in refused_file(tmp_path, "nothing_to_do")
    (tmp_path / "metadata.csv").write_bytes(content)
    assert "nothing to do" in refused_file(tmp_path, "nothing_to_do")


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"a\nb.png", b"a" * 251 + b".png"], ids=["latin-1", "newline", "255"])
def test_any_name_of_a_picture_or_a_data_file_can_be_used(
    name: bytes, data_file: Lines, image_file: Callable[..., Path], tmp_path: Path
) -> None:
    image_file(os.fsdecode(name))
    path = data_file({**GOOD, "image": os.fsdecode(name)}, name=os.fsdecode(b"d" + name[1:]))
    (sample,) = read_conversations(path, image_root=None)
    assert os.fsencode(sample.image) == os.fsencode(tmp_path) + b"/" + name
    assert list(problems_of(path, image_root=None)) == []
    sample.image.unlink()
    (problem,) = problems_of(path, image_root=None)
    assert len(problem) <= 300
    assert problem.isprintable()
    assert "no such file" in problem


WRONG_ANSWERS = [
    (None, "is no text"),
    ({}, "is no text"),
    ("", "is empty"),
    ([], "is an empty list"),
    ([["2"]], "is no list of texts"),
    ([None], "is no list of texts"),
    (True, "is no text but true"),
    ([False, False], "is no text but false"),
]


@pytest.mark.parametrize(("value", "why"), WRONG_ANSWERS)
def test_answers_of_the_wrong_kind_are_named_with_their_line(value: Any, why: str, bad_line: Reader) -> None:
    assert f"field 'answer' {why}" in bad_line({**GOOD, "answer": value}, "bad_field")


@pytest.mark.parametrize("value", [None, 2, {}, [], "", " \u200b", [{"type": "image"}]])
@pytest.mark.parametrize("kind", ["conversations", "messages"])
def test_turns_of_the_wrong_kind_are_named_with_their_line(value: Any, kind: str, bad_line: Reader) -> None:
    role, content, speakers = ("role", "content", ("user", "assistant"))
    if kind == "conversations":
        role, content, speakers = ("from", "value", ("human", "gpt"))
    turns = [{role: speakers[0], content: "what?"}, {role: speakers[1], content: value}]
    is_blank = isinstance(value, str | list)
    bad_line({"image": "a.png", kind: turns}, "text_empty" if is_blank else "bad_field")


def test_the_one_missing_picture_among_a_thousand_is_found(data_file: Lines, image_file: Callable[..., Path]) -> None:
    for number in range(1000):
        image_file(f"{number}.png")
    path = data_file(*[{**GOOD, "image": f"{number}.png"} for number in range(1000)])
    assert list(problems_of(path, image_root=None)) == []
    (path.parent / "516.png").unlink()
    (problem,) = problems_of(path, image_root=None)
    assert "d.jsonl line 517): " in problem
    assert "516.png" in problem


def test_a_picture_that_many_records_share_is_listed_for_each(data_file: Lines) -> None:
    problems = list(problems_of(data_file(*[{**GOOD, "image": "no.png"}] * 3), image_root=None))
    assert [f"line {number})" in problem for number, problem in enumerate(problems, start=1)] == [True] * 3


@pytest.mark.parametrize("name", ["d.jsonl", "metadata.csv"])
@pytest.mark.parametrize("content", [gzip.compress(b"{}", mtime=0), b"PK\x03\x04....", b"BZh91AY", b"\xfd7zXZ\0"])
def test_compressed_files_are_named(content: bytes, name: str, tmp_path: Path, refused_file: Reader) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert "compressed input not supported" in refused_file(path, "compressed")


def test_the_number_of_bad_records_is_said_within_the_length_of_a_line(data_file: Lines, refused: Refused) -> None:
    path = data_file(*[b'{"' + b"x" * 300 + b'": 1, "' + b"x" * 300 + b'": 1}'] * 1200, name="d" * 240)
    error = refused(DataError, "bad_json", read_conversations, path, image_root=None)
    assert "(1,200 bad records in all: --check-data lists them)" in error.message
