"""The forms in which people have training data: what a small file of each is read as, and what is said about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlinstruct.errors import DataError, UsageError, VlinstructError
from vlinstruct.training.data.conversations import TrainingSample, read_conversations
from vlinstruct.training.data.fields import CAPTION_INSTRUCTION
from vlinstruct.training.data.reading import DataOptions

from .checking import problems_of

Refused = Callable[..., VlinstructError]
Q, A, P = "which bird is it?", "a wren", "birds/7.png"
ASKED, MARKED = {"role": "user", "content": Q}, f"<image>\n{Q}"


def chat(*parts: Any, answer: Any = A, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}, {"role": "assistant", "content": answer}], **more}


def said(*texts: str, **more: Any) -> dict[str, Any]:
    turns = [{"from": "gpt" if place % 2 else "human", "value": text} for place, text in enumerate(texts)]
    return {"conversations": turns, **more}


TEXT_PART = {"type": "text", "text": Q}
# Each of these says the same: one picture, one question, one answer.
FORMS: dict[str, dict[str, Any]] = {
    "question": {"image": P, "question": Q, "answer": A},
    "instruction": {"image": P, "instruction": Q, "answer": A},
    "list of one": {"image": [P], "question": Q, "answer": A},
    "struct": {"image": {"path": P, "bytes": None}, "question": Q, "answer": A},
    "file URL": {"image": f"file://{P}", "question": Q, "answer": A},
    "LLaVA": said(MARKED, A, id=3, image=P),
    "LLaVA with a list": said(MARKED, A, image=[P]),
    "LLaVA with OpenAI's keys": {"image": P, "conversations": [ASKED, {"role": "assistant", "content": A}]},
    "images": {"images": [P], "messages": [{"role": "user", "content": MARKED}, {"role": "assistant", "content": A}]},
    "images of structs": {"images": [{"path": P, "bytes": None}], **chat({"type": "image"}, TEXT_PART)},
    "OpenAI": chat({"type": "image_url", "image_url": {"url": P, "detail": "low"}}, TEXT_PART),
    "OpenAI with a text": chat({"type": "image_url", "image_url": P}, TEXT_PART),
    "OpenAI with a file URL": chat({"type": "image_url", "image_url": {"url": f"file://{P}"}}, TEXT_PART),
    "part with image": chat({"type": "image", "image": P}, TEXT_PART),
    "part with path": chat({"type": "image", "path": P}, TEXT_PART),
    "part with url": chat(TEXT_PART, {"type": "image", "url": P, "image": None}),
    "part with a struct": chat({"type": "image", "image": {"path": P}}, TEXT_PART),
    "answer in parts": chat({"type": "image", "image": P}, TEXT_PART, answer=[{"type": "text", "text": A}]),
    "ms-swift": {"query": f"<image>{Q}", "response": A, "images": [P]},
    "ms-swift, no history": {"query": Q, "response": A, "images": [P], "history": []},
    "Alpaca": {"instruction": Q, "input": "", "output": A, "image": P},
    "Alpaca with a mark": {"instruction": MARKED, "output": A, "images": [P]},
    "Alpaca in two": {"instruction": "<image>which bird", "input": "is it?", "output": A, "image": P},
    "prompt and completion": {"prompt": Q, "completion": A, "image": P},
    "prompt and response": {"prompt": Q, "response": A, "image": P},
    "TRL": {"prompt": [ASKED], "completion": [{"role": "assistant", "content": A}], "images": [P]},
    "Cauldron": {"images": [P], "texts": [{"user": Q, "assistant": A, "source": "birds"}]},
    "LAVIS": {"image": P, "text_input": Q, "text_output": A},
    "LAVIS' answers": {"image": P, "text_input": Q, "answers": [A]},
    "VQA": {"image": P, "question": Q, "question_id": 4, "answer": ["a robin", A, A]},
    "VQA's ten": {"image": P, "question": Q, "answers": [{"answer": A, "answer_id": n} for n in range(10)]},
}


def read(folder: Path, *records: Any, name: str = "d.jsonl", **options: Any) -> tuple[list[TrainingSample], list[str]]:
    """Writes records as lines and returns their samples, and what is said about them."""
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    notices: list[str] = []
    samples = read_conversations(path, image_root=None, options=DataOptions(**options), notify=notices.append)
    return samples, notices


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_sample(form: str, tmp_path: Path) -> None:
    (sample,), _ = read(tmp_path, FORMS[form])
    assert sample.image == tmp_path / P
    assert sample.instruction.split() == Q.split()
    assert (sample.prompt, sample.answer) == (sample.instruction, A)


def test_earlier_turns_of_ms_swift_stand_in_front(tmp_path: Path) -> None:
    record = {"query": Q, "response": A, "history": [["<image>is it big?", "no"]], "images": [P]}
    (sample,), _ = read(tmp_path, record)
    assert sample.prompt == f"Question: is it big? Answer: no Question: {Q} Answer:"
    with pytest.raises(DataError, match="'history' is no list of pairs"):
        read(tmp_path, {**record, "history": ["is it big?"]})


ANSWERS: list[tuple[Any, str]] = [
    (3, "3"),
    (-0.5, "-0.5"),
    (3.0, "3"),
    (["b", "a", "a"], "a"),
    (["b", "a", "a", "b"], "b"),
    (["b"], "b"),
    ([2, 1, 1], "1"),
    ("the <image> tag", "the <image> tag"),
]


@pytest.mark.parametrize(("value", "learned"), ANSWERS)
def test_answers_are_learned_as_people_mean_them(value: Any, learned: str, tmp_path: Path) -> None:
    (sample,), _ = read(tmp_path, {"image": P, "question": Q, "answer": value})
    assert sample.answer == learned


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(f'{{"image": "{P}", "question": "{Q}", "answer": 1e999}}')
    with pytest.raises(DataError, match="'answer' is inf"):
        read_conversations(tmp_path / "d.jsonl", image_root=None)


def test_a_mark_is_taken_out_of_questions_only(tmp_path: Path) -> None:
    (sample,), notices = read(tmp_path, said("<image>\nwhich <image> tag?", "the <image> tag", image=P))
    assert (sample.instruction.split(), sample.answer) == (["which", "tag?"], "the <image> tag")
    assert notices == []


def test_what_is_read_otherwise_is_said_once_with_its_count(tmp_path: Path) -> None:
    system = [{"from": "system", "value": "be brief"}]
    records: list[dict[str, Any]] = [
        {"image": P, "conversations": system + said(Q, A)["conversations"]},
        {**FORMS["ms-swift"], "system": "be brief"},
        *[{"image": P, "question": Q, "answer": value} for value in (3, 4, ["a", "b"])],
        {"image": P, "question": MARKED, "answer": A},
    ]
    samples, notices = read(tmp_path, *records)
    assert len(samples) == 6
    assert samples[-1].instruction == MARKED
    among = f"of 6 records in {tmp_path}/d.jsonl: "
    assert [notice.partition(among)[0] for notice in notices] == ["2 ", "1 ", "2 ", "1 "]
    assert all(word in notice for word, notice in zip(("system", "several", "number", "<image>"), notices, strict=True))
    assert read(tmp_path, FORMS["question"])[1] == []


TEXT_ONLY: list[dict[str, Any]] = [
    said("hello", "hi", id="b"),
    said("hello", "hi", image=None),
    said("hello", "hi", image=""),
    {"images": [], "question": "hello", "answer": "hi"},
    chat({"type": "text", "text": "hello"}),
]


@pytest.mark.parametrize("record", TEXT_ONLY)
def test_records_without_a_picture_are_left_out_only_when_asked(record: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2\).*--skip-text-only"):
        read(tmp_path, FORMS["LLaVA"], record)
    with pytest.raises(DataError, match=r"2 of 3 records have no picture\. Skip them with --skip-text-only"):
        read(tmp_path, FORMS["LLaVA"], record, {name: value for name, value in record.items() if name != "id"})
    (sample,), notices = read(tmp_path, FORMS["LLaVA"], record, skip_text_only=True)
    assert sample.answer == A
    assert notices == [f"1 of 2 records in {tmp_path}/d.jsonl: no picture, left out"]


def test_a_file_of_texts_alone_is_refused_even_then(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of its 2 records has a picture"):
        read(tmp_path, *[said("hello", "hi")] * 2, skip_text_only=True)


def test_a_picture_in_another_field_is_recognised_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--columns image=file"):
        read(tmp_path, *[{"file": P, "question": Q, "answer": A}] * 2)


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"image": ["a.png", "b.png"], "question": Q, "answer": A}, "several pictures (2 in 'image')", "a record for each"),
    ({"image": "/9j/4AAQ" * 50, "question": Q, "answer": A}, "in 'image' as base64 text", "Save it as a file"),
    ({"image": 3, "question": Q, "answer": A}, "field 'image' names no picture, it is a number", ""),
    ({"image": {"file": P}, "question": Q, "answer": A}, "neither 'path' nor 'url'", ""),
    ({"image": {"bytes": "iVBOR"}, "question": Q, "answer": A}, "holds the picture itself", "parquet"),
    (chat({"type": "image_url", "image_url": {"url": "http://x/a.png"}}, TEXT_PART), "is a URL", "Download it"),
    (
        chat({"type": "image_url", "image_url": {"url": "data:image/png;base64,iV"}}, TEXT_PART),
        "data: URL, the format",
        "Save",
    ),
    (chat({"type": "video", "video": "a.mp4"}, TEXT_PART, image=P), "a part of type 'video'", ""),
    ({"image": P, "query": Q}, "field 'response' is missing (ms-swift's query and response)", "--columns answer="),
    ({"image": P, "output": A}, "field 'instruction' is missing", ""),
    ({"image": P, "label": 3}, "fields 'question' and 'answer' are missing; it has image, label", "--columns"),
    ({"image": P, "conversations": [{"from": "human", "value": Q}]}, "LLaVA conversations: human", ""),
    (said(Q, "", image=P), "empty or blank", ""),
    ({"images": [P], "texts": [{"user": Q}]}, "objects with 'user' and 'assistant'", ""),
    ({"image": "file://[x/a.png", "question": Q}, "field 'answer' is missing", ""),
    (chat({"type": "text", "text": None}, image=P), "a part of type 'text' without text", ""),
]


@pytest.mark.parametrize(("record", "why", "advice"), REFUSED)
def test_what_cannot_be_read_is_said_with_the_way_out(
    record: dict[str, Any], why: str, advice: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, FORMS["question"], record)
    assert "d.jsonl line 2): " in caught.value.message
    assert why in caught.value.message
    assert advice in caught.value.message
    assert len(caught.value.message) <= 290


# One JSON text: a record laid out for people, COCO's captions, and what only looks like either.
COCO = {
    "info": {},
    "images": [{"id": 9, "file_name": "9.jpg"}, {"id": 4, "file_name": "4.jpg"}],
    "annotations": [{"id": 1, "image_id": 4, "caption": "a wren"}, {"id": 2, "image_id": 9, "caption": "a robin"}],
}


@pytest.mark.parametrize("indent", [None, 1])
def test_one_object_is_one_record(indent: int | None, tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps(FORMS["LLaVA"], indent=indent))
    (sample,) = read_conversations(path, image_root=None)
    assert (sample.id, sample.answer) == ("3", A)


@pytest.mark.parametrize("indent", [None, 1])
def test_cocos_captions_are_learned_with_their_pictures(indent: int | None, tmp_path: Path) -> None:
    path = tmp_path / "captions_val2017.json"
    path.write_text(json.dumps(COCO, indent=indent))
    samples = read_conversations(path, image_root="val2017")
    assert [(sample.id, sample.image, sample.answer) for sample in samples] == [
        ("1", Path("val2017/4.jpg"), "a wren"),
        ("2", Path("val2017/9.jpg"), "a robin"),
    ]
    assert {sample.instruction for sample in samples} == {CAPTION_INSTRUCTION}


def test_a_large_coco_file_on_one_line_is_still_coco(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({**COCO, "info": {"description": "x" * 1_100_000}}))
    assert len(read_conversations(path, image_root=None)) == 2


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({**COCO, "annotations": [{"id": 1, "image_id": 4, "bbox": [0, 0, 1, 1]}]}, "without captions"),
        ({**COCO, "annotations": [{"id": 1, "image_id": 5, "caption": "a"}]}, "no file_name for image_id 5"),
        ({"questions": [{"image_id": 1, "question": Q, "question_id": 1}]}, "as VQA's and COCO's files are"),
        ({"version": 1, "data": [FORMS["question"]]}, "jq .data FILE"),
    ],
)
def test_other_single_objects_are_refused_by_name(content: Any, why: str, tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps(content, indent=1))
    with pytest.raises(DataError) as caught:
        read_conversations(path, image_root=None)
    assert why in caught.value.message


def test_objects_laid_out_one_after_the_other_are_one_message(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(json.dumps(FORMS["question"], indent=1) for _ in range(9)))
    error = refused(DataError, "bad_json", read_conversations, path, image_root=None)
    assert "jq -c . FILE" in error.message
    refused(DataError, "bad_json", lambda: problems_of(path, image_root=None))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 60, "no text but a PNG picture"),
        (b"\x80\x04\x95\0\0\0\0\0\0\0\0\n" * 9, "it is no text"),
        (b"<!DOCTYPE html>\n<html>\n" * 9, "a page of HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "a Git LFS pointer"),
    ],
)
def test_a_file_that_is_no_text_is_one_message(content: bytes, why: str, tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(content)
    assert why in refused(DataError, "no_text", read_conversations, path, image_root=None).message


def test_an_excel_table_is_refused_by_name(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "d.xlsx").write_bytes(b"PK\x03\x04")
    error = refused(DataError, "other_table", read_conversations, tmp_path / "d.xlsx", image_root=None)
    assert "Save it as CSV" in error.message


def test_a_table_with_tabs_is_read_as_one_with_commas(tmp_path: Path) -> None:
    (tmp_path / "d.tsv").write_text(f"image\tquestion\tanswer\n{P}\twhich one, and why?\ta, b\n")
    (sample,) = read_conversations(tmp_path / "d.tsv", image_root=None)
    assert (sample.id, sample.instruction, sample.answer) == ("line-2", "which one, and why?", "a, b")


def test_columns_say_which_field_is_which(tmp_path: Path) -> None:
    mapping = {"image": "file", "question": "q", "answer": "a", "id": "key"}
    records = [{"file": P, "q": Q, "a": A, "key": "k1", "image": "no.png", "instruction": "another"}]
    (sample,), _ = read(tmp_path, *records, columns=mapping)
    assert (sample.id, sample.image, sample.instruction, sample.answer) == ("k1", tmp_path / P, Q, A)
    (tmp_path / "d.csv").write_text(f"file,q,a,key\n{P},{Q},{A},k1\n")
    assert read_conversations(tmp_path / "d.csv", image_root=None, options=DataOptions(columns=mapping)) == [sample]


def test_columns_that_are_not_there_are_named_beside_those_that_are(tmp_path: Path) -> None:
    options = DataOptions(columns={"question": "query"})
    (tmp_path / "d.csv").write_text(f"image,q,answer\n{P},{Q},{A}\n")
    with pytest.raises(DataError, match="no column 'query'; there are image, q, answer"):
        read_conversations(tmp_path / "d.csv", image_root=None, options=options)
    with pytest.raises(DataError, match="field 'query' is missing; it has image, q, answer"):
        read(tmp_path, {"image": P, "q": Q, "answer": A}, columns={"question": "query"})
    with pytest.raises(UsageError, match="'picture'"):
        DataOptions(columns={"picture": "file"})


def test_paths_that_lead_out_can_be_allowed(tmp_path: Path) -> None:
    outside = str(tmp_path.parent / "x.png")
    for image in (outside, "../x.png"):
        record = {**FORMS["question"], "image": image}
        with pytest.raises(DataError, match="allow it with --allow-outside"):
            read(tmp_path, record)
        (sample,), _ = read(tmp_path, record, allow_outside=True)
        assert isinstance(sample.image, Path)
        assert sample.image.resolve() == tmp_path.parent / "x.png"


def test_links_that_lead_out_can_be_allowed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path.parent)
    record = {**FORMS["question"], "image": "link/x.png"}
    with pytest.raises(DataError, match=r"behind a link.*--allow-outside"):
        read(tmp_path, record)
    (sample,), _ = read(tmp_path, record, allow_outside=True)
    assert sample.image == tmp_path / "link" / "x.png"
    with_root = read_conversations(tmp_path / "d.jsonl", image_root=tmp_path / "link", options=DataOptions())
    assert with_root[0].image == tmp_path / "link" / "link" / "x.png", "the root may be a link; in it this is none"


def test_a_whole_path_that_lies_inside_is_no_way_out(tmp_path: Path) -> None:
    (sample,), _ = read(tmp_path, {**FORMS["question"], "image": str(tmp_path / P)})
    assert sample.image == tmp_path / P
