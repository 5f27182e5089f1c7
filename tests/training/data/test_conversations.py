"""Training data in the formats that people have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlinstruct.errors import DataError
from vlinstruct.training.data.conversations import read_conversations

from .checking import problems_of

TWO_TURNS = [("who is it?", "Ann"), ("why?", "she waves")]


def llava() -> dict[str, Any]:
    said = [("human", "<image>\nwho is it?"), ("gpt", "Ann"), ("human", "why?"), ("gpt", "she waves")]
    return {"id": "a", "image": "a.png", "conversations": [{"from": who, "value": text} for who, text in said]}


def messages() -> dict[str, Any]:
    said = [("system", "be kind"), ("user", "<image>who is it?"), ("assistant", "Ann"), ("user", "why?")]
    turns = [{"role": who, "content": text} for who, text in [*said, ("assistant", "she waves")]]
    return {"id": "a", "images": ["a.png"], "messages": turns}


def parts() -> dict[str, Any]:
    record = messages()
    record["messages"][1]["content"] = [{"type": "image"}, {"type": "text", "text": "who is it?"}]
    return record


def write(path: Path, *records: Any, as_list: bool = False) -> Path:
    path.write_text(json.dumps(records) if as_list else "".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize("record", [llava(), messages(), parts()], ids=["llava", "messages", "parts"])
def test_the_last_answer_is_learned_after_the_history(record: dict[str, Any], as_list: bool, tmp_path: Path) -> None:
    (sample,) = read_conversations(write(tmp_path / "d.json", record, as_list=as_list), image_root="pictures")
    assert (sample.id, sample.image) == ("a", Path("pictures/a.png"))
    assert sample.instruction == "why?"
    assert sample.prompt == "Question: who is it? Answer: Ann Question: why? Answer:"
    assert sample.answer == "she waves"


def test_all_answers_are_a_sample_each(tmp_path: Path) -> None:
    first, second = read_conversations(write(tmp_path / "d.json", llava()), image_root=None, answers="all")
    assert (first.id, first.prompt, first.answer) == ("a#1", "who is it?", "Ann")
    assert (second.id, second.answer) == ("a#2", "she waves")


@pytest.mark.parametrize("name", ["instruction", "question"])
def test_a_plain_line_is_sent_verbatim(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", {"image": "a.png", name: "what is {0} </s>?", "answer": "2"})
    (sample,) = read_conversations(path, image_root=None)
    assert (sample.instruction, sample.prompt, sample.answer) == ("what is {0} </s>?", "what is {0} </s>?", "2")
    assert sample.image == tmp_path / "a.png"


BAD = {
    "missing": ({"image": "a.png", "answer": "2"}, "field 'question' is missing"),
    "outside": ({"image": "../a.png", "question": "q", "answer": "2"}, "outside the image folder"),
    "null": ({"image": "a.png", "question": "q", "answer": None}, "field 'answer' is no text"),
    "empty": ({"image": "a.png", "question": "q", "answer": ""}, "field 'answer' is empty"),
    "turns": ({"image": "a.png", "conversations": [{"from": "gpt", "value": "x"}] * 2}, "do not alternate"),
    "half": ({"image": "a.png", "conversations": [{"from": "human", "value": "x"}]}, "do not alternate"),
    "none": ({"image": "a.png", "conversations": []}, "no list of turns"),
    "text": ({"image": "a.png", "messages": [{"role": "user"}, 3]}, "a turn has no text"),
    "pictures": ({"images": ["a", "b"], "messages": []}, "one picture is expected"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_record_is_named_by_line(case: str, tmp_path: Path) -> None:
    good = {"id": "good", "image": "a.png", "question": "q", "answer": "2"}
    path = write(tmp_path / "d.jsonl", good, BAD[case][0])
    with pytest.raises(DataError, match="line 2") as caught:
        read_conversations(path, image_root=None)
    assert BAD[case][1] in caught.value.message


def test_damaged_files_are_named(tmp_path: Path) -> None:
    for content in (b"[{", b"", b"[]", b"[1]", b"\n\n", b"[" * 100_000):
        path = tmp_path / "d.json"
        path.write_bytes(content)
        with pytest.raises(DataError):
            read_conversations(path, image_root=None)


def test_a_conversation_of_the_system_alone_has_nothing_to_learn(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", {"image": "a.png", "messages": [{"role": "system", "content": "be kind"}]})
    with pytest.raises(DataError, match="do not alternate"):
        read_conversations(path, image_root=None)


def test_both_names_of_the_question_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", {"image": "a.png", "question": "q", "instruction": "i", "answer": "2"})
    with pytest.raises(DataError, match="both 'question' and 'instruction' are given"):
        read_conversations(path, image_root=None)


def test_samples_without_ids_are_called_by_their_place(tmp_path: Path) -> None:
    record = {"image": "a.png", "question": "q", "answer": "2"}
    path = tmp_path / "d.jsonl"
    path.write_text(f"{json.dumps(record)}\n\n{json.dumps(record)}\n")
    assert [sample.id for sample in read_conversations(path, image_root=None)] == ["line-1", "line-3"]
    path = write(tmp_path / "d.json", record, record, as_list=True)
    assert [sample.id for sample in read_conversations(path, image_root=None)] == ["record-1", "record-2"]


def test_a_damaged_list_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text('[\n {"image": "a.png"},\n {"image" "b.png"}\n]\n')
    with pytest.raises(DataError, match="line 3") as caught:
        read_conversations(path, image_root=None)
    assert "not valid JSON at column 11" in caught.value.message


def test_a_check_lists_every_problem(tmp_path: Path, image_file: Callable[..., Path]) -> None:
    image_file("a.png")
    image_file("text.png", b"a plain text, no picture")
    good = {"id": "good", "image": "a.png", "question": "q", "answer": "2"}
    records = [good, {"image": "a.png"}, {**good, "id": "b", "image": "no.png"}, {**good, "id": "c"}]
    path = write(tmp_path / "d.jsonl", *records)
    with path.open("a") as file:
        file.write('{"image"\n')
        file.write(json.dumps({**good, "id": "text", "image": "text.png"}) + "\n")
        file.write(json.dumps(good) + "\n")
        file.write(json.dumps({"id": [], "image": "../a.png", "question": "q", "answer": ""}) + "\n")
    expected = [
        (2, "fields 'question' and 'answer' are missing"),
        (3, "no such file"),
        (5, "not valid JSON at column"),
        (6, "not an image (looks like text)"),
        (7, "its id 'good' is that of line 1 too"),
        (8, "field 'id' is neither text nor a whole number"),
        (8, "outside the image folder"),
        (8, "field 'answer' is empty"),
    ]
    problems = list(problems_of(path, image_root=None))
    assert len(problems) == len(expected)
    for problem, (line, why) in zip(problems, expected, strict=True):
        assert f"d.jsonl line {line}): " in problem
        assert why in problem
