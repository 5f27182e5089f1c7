"""A wrong, truncated or mixed-up file gives one line with its name, its record and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any, cast

import pytest

from vlinstruct.errors import DataError, ImageError, InputError, TextError
from vlinstruct.evaluation.benchmarks import BENCHMARKS
from vlinstruct.evaluation.reading.files import read_items
from vlinstruct.evaluation.reading.items import PictureFile

from ..official_files import dump, write

Change = Callable[[Any], Any]
FILES = {
    "flickr30k": "dataset_flickr30k.json",
    "nocaps": "nocaps_val_4500_captions.json",
    "vsr": "test.jsonl",
    "gqa": "testdev_balanced_questions.json",
    "iconqa": "problems.json",
    "vizwiz": "val.json",
    "textvqa": "TextVQA_0.5.1_val.json",
    "visdial": "visdial_1.0_val.json",
    "scienceqa": "problems.json",
    "hatefulmemes": "dev_unseen.jsonl",
}


def refusal(name: str, data: Path, kind: type[InputError] = DataError) -> InputError:
    """Returns the error of reading, which holds to the contract of error lines."""
    with pytest.raises(kind) as caught:
        read_items(BENCHMARKS[name], data / name)
    message = caught.value.message
    assert len(f"error: {message}") <= 300
    assert message.isprintable()
    return caught.value


def changed(data: Path, name: str, change: Change, file: str | None = None) -> None:
    """Rewrites a JSON file, or the first line of JSON lines."""
    path = data / name / (file or FILES[name])
    first, _, rest = path.read_text().partition("\n")
    path.write_text(json.dumps(change(json.loads(first))) + "\n" + rest)


def with_field(name: str, value: Any) -> Change:
    return lambda record: {**record, name: value}


def without(name: str) -> Change:
    return lambda record: {key: value for key, value in record.items() if key != name}


def inside(*path: Any, change: Change) -> Change:
    """Changes what lies at a path of keys and places."""
    if not path:
        return change

    def apply(value: Any) -> Any:
        value[path[0]] = inside(*path[1:], change=change)(value[path[0]])
        return value

    return apply


def repeated(records: list[Any]) -> list[Any]:
    return [*records, records[0]]


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "iconqa"])
def test_every_file_that_is_missing_is_named_with_where_it_comes_from(name: str, tmp_path: Path) -> None:
    write(tmp_path, name)
    for path in BENCHMARKS[name].forms[0]:
        whole, hidden = tmp_path / name / path, tmp_path / "hidden"
        whole.rename(hidden)
        error = refusal(name, tmp_path)
        assert error.code == "data_missing"
        assert path.rstrip("/").split("/")[-1] in error.message
        assert ("no such folder" if path.endswith("/") else "no such file") in error.message
        assert BENCHMARKS[name].source[:20] in error.message
        hidden.rename(whole)


def test_without_its_two_files_iconqa_needs_one_in_every_folder(tmp_path: Path) -> None:
    (write(tmp_path, "iconqa") / "iconqa" / "problems.json").unlink()
    assert "9/data.json): no such file" in refusal("iconqa", tmp_path).message
    (tmp_path / "iconqa" / "iconqa").rename(tmp_path / "hidden")
    message = refusal("iconqa", tmp_path).message
    assert "iconqa/test/choose_txt): no such folder" in message
    assert "https://iconqa.github.io" in message


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_truncated_file_is_named_with_its_line(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name) / name / FILES[name]
    path.write_bytes(path.read_bytes()[:-9])
    message = refusal(name, tmp_path).message
    assert FILES[name] in message
    assert "not valid JSON at" in message
    assert "line " in message


# IconQA and ScienceQA share a form; their parts have other names.
OTHERS = [pair for pair in permutations(BENCHMARKS, 2) if set(pair) != {"iconqa", "scienceqa"}]


@pytest.mark.parametrize(("name", "other"), OTHERS)
def test_another_benchmarks_file_is_refused(name: str, other: str, tmp_path: Path) -> None:
    write(tmp_path, name, other)
    (tmp_path / name / FILES[name]).write_bytes((tmp_path / other / FILES[other]).read_bytes())
    assert FILES[name] in refusal(name, tmp_path).message


@pytest.mark.parametrize(("name", "other"), [("iconqa", "scienceqa"), ("scienceqa", "iconqa")])
def test_the_other_ones_parts_are_refused(name: str, other: str, tmp_path: Path) -> None:
    write(tmp_path, name, other)
    (tmp_path / name / "pid_splits.json").write_bytes((tmp_path / other / "pid_splits.json").read_bytes())
    assert "pid_splits.json): field" in refusal(name, tmp_path).message


BAD_RECORDS: list[tuple[str, Change, str, str]] = [
    ("flickr30k", inside("images", 1, change=without("split")), "image 2", "field 'split' is missing"),
    ("flickr30k", inside("images", 1, change=with_field("filename", 7)), "image 2", "field 'filename' is no text"),
    ("flickr30k", inside("images", 1, change=with_field("sentences", [])), "image 2", "it has no caption"),
    ("flickr30k", with_field("dataset", "coco"), "", "another data set than 'flickr30k'"),
    ("flickr30k", inside("images", change=lambda images: images + images[1:]), "image 4", "its id '31' is that of"),
    ("nocaps", with_field("annotations", []), "image 1", "'annotations' holds no caption of image 7"),
    ("nocaps", with_field("images", {}), "", "field 'images' is no list of objects"),
    ("nocaps", inside("images", change=repeated), "image 3", "its id '7' is that of image 1 too"),
    ("vsr", without("caption"), "line 1", "field 'caption' is missing"),
    ("vsr", with_field("label", 2), "line 1", "field 'label' is 2, of 0 to 1"),
    ("vsr", with_field("label", True), "line 1", "field 'label' is no whole number"),
    ("vsr", with_field("image", "../../secret.jpg"), "line 1", "lies outside the benchmark's folder"),
    ("vsr", with_field("image", "/etc/secret.jpg"), "line 1", "lies outside the benchmark's folder"),
    ("gqa", inside("201", change=without("answer")), "question 201", "field 'answer' is missing"),
    ("gqa", with_field("201", []), "question 201", "it is missing or no object"),
    ("gqa", with_field("2/1", {"question": "q", "answer": "a", "imageId": "n"}), "question 2/1", "holds a slash"),
    ("gqa", inside("201", change=with_field("question", "\ud800")), "question 201", "is not valid Unicode"),
    ("iconqa", without("12"), "problem 12", "it is missing or no object"),
    ("iconqa", inside("9", change=with_field("answer", 3)), "problem 9", "field 'answer' is 3, of 0 to 2"),
    ("iconqa", inside("9", change=with_field("answer", "five")), "problem 9", "field 'answer' is no whole number"),
    ("iconqa", inside("9", change=with_field("choices", ["5"])), "problem 9", "holds no 2 to 26 texts"),
    ("iconqa", inside("9", change=with_field("choices", [5, 8])), "problem 9", "is no list of texts"),
    ("vizwiz", lambda records: [records[0], 7], "question 2", "it is no JSON object"),
    ("vizwiz", inside(0, change=with_field("answers", [{"answer": "a"}])), "question 1", "holds 1 answers, not 10"),
    ("vizwiz", inside(1, "answers", 2, change=without("answer")), "question 2 answer 3", "field 'answer' is missing"),
    ("vizwiz", repeated, "question 3", "its id 'VizWiz_val_00000007' is that of question 1 too"),
    ("textvqa", inside("data", 0, change=with_field("answers", ["a"] * 9)), "question 1", "9 answers, not 10"),
    ("textvqa", inside("data", 0, change=with_field("set_name", "train")), "question 1", "another part than 'val'"),
    ("textvqa", inside("data", 0, change=with_field("image_id", "ff")), "question 1", "no tokens of its image ff"),
    ("textvqa", inside("data", change=repeated), "question 3", "its id '34602' is that of question 1 too"),
    ("visdial", with_field("split", "train2018"), "", "another part than 'val2018'"),
    ("visdial", with_field("data", 1), "", "field 'data' is no object"),
    (
        "visdial",
        inside("data", "dialogs", 0, "dialog", 1, change=with_field("gt_index", 3)),
        "dialogue 1 round 2",
        "field 'gt_index' is 3, of 0 to 2",
    ),
    (
        "visdial",
        inside("data", "dialogs", 0, "dialog", 1, change=with_field("answer_options", [0, 9])),
        "dialogue 1 round 2",
        "field 'answer_options' holds 9, of 0 to 2",
    ),
    (
        "visdial",
        inside("data", "dialogs", 0, "dialog", 1, change=with_field("answer_options", ["yes"])),
        "dialogue 1 round 2",
        "is no list of whole numbers",
    ),
    ("visdial", inside("data", "dialogs", 0, change=with_field("dialog", [])), "dialogue 1", "it has no round"),
    ("visdial", inside("data", "dialogs", change=repeated), "dialogue 3 round 2", "its id '185' is that of"),
    ("scienceqa", inside("5", change=with_field("answer", -1)), "problem 5", "field 'answer' is -1, of 0 to 1"),
    ("scienceqa", inside("3", change=without("question")), "problem 3", "field 'question' is missing"),
    ("hatefulmemes", without("text"), "line 1", "field 'text' is missing"),
    ("hatefulmemes", with_field("id", [53]), "line 1", "field 'id' is no text"),
]


@pytest.mark.parametrize(("name", "change", "record", "why"), BAD_RECORDS)
def test_a_record_that_cannot_be_used_is_named(
    name: str, change: Change, record: str, why: str, tmp_path: Path
) -> None:
    changed(write(tmp_path, name), name, change)
    message = refusal(name, tmp_path).message
    assert f"{FILES[name]} {record}".rstrip() in message
    assert why in message
    assert "vlinstruct evaluate --list" in message


@pytest.mark.parametrize("name", ["hatefulmemes", "flickr30k", "gqa", "scienceqa"])
def test_a_picture_behind_a_link_is_refused_and_a_folder_of_pictures_may_be_one(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path, name) / name
    picture = cast(PictureFile, next(iter(read_items(BENCHMARKS[name], folder))).load_picture).path
    pictures = folder / picture.relative_to(folder).parts[0]
    pictures.rename(tmp_path / "elsewhere")
    pictures.symlink_to(tmp_path / "elsewhere")
    next(iter(read_items(BENCHMARKS[name], folder))).load_picture()
    (tmp_path / "secret.png").write_bytes(picture.read_bytes())
    picture.unlink()
    picture.symlink_to(tmp_path / "secret.png")
    assert "lies outside the benchmark's folder" in refusal(name, tmp_path).message


def test_a_part_that_names_a_problem_twice_is_refused(tmp_path: Path) -> None:
    changed(write(tmp_path, "scienceqa"), "scienceqa", with_field("test", ["3", "5", "3"]), "pid_splits.json")
    assert "problem 3): its id '3' is that of problem 3 too" in refusal("scienceqa", tmp_path).message


def test_an_id_that_is_given_twice_in_one_object_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "gqa") / "gqa" / FILES["gqa"]
    path.write_text(path.read_text().replace('"202"', '"201"'))
    assert "field '201' is given twice" in refusal("gqa", tmp_path).message


def test_a_question_that_nobody_can_be_asked_is_named(tmp_path: Path) -> None:
    write(tmp_path, "gqa")
    changed(tmp_path, "gqa", inside("201", change=with_field("question", "x" * 30_000)))
    message = refusal("gqa", tmp_path, TextError).message
    assert "question 201" in message
    assert "30,0" in message


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"\x1f\x8b\x08", "compressed"), (b"\xff\xfe{\0", "UTF-16"), (b'{"a": "\xe9"}', "not UTF-8"), (b"7", "no JSON")],
)
@pytest.mark.parametrize("name", ["gqa", "vizwiz", "vsr"])
def test_a_file_of_another_kind_is_named(name: str, content: bytes, why: str, tmp_path: Path) -> None:
    (write(tmp_path, name) / name / FILES[name]).write_bytes(content)
    message = refusal(name, tmp_path).message
    assert FILES[name] in message
    assert why in message


def test_files_without_an_item_give_no_score(tmp_path: Path) -> None:
    dump(write(tmp_path, "scienceqa") / "scienceqa" / "pid_splits.json", {"test": []})
    error = refusal("scienceqa", tmp_path)
    assert error.code == "nothing_to_do"
    assert "no score can be computed" in error.message


def test_a_missing_picture_is_named_when_it_is_drawn(tmp_path: Path) -> None:
    picture = write(tmp_path, "vsr") / "vsr" / "images" / "000000000002.jpg"
    picture.unlink()
    _, item = read_items(BENCHMARKS["vsr"], tmp_path / "vsr")
    with pytest.raises(ImageError, match=r"000000000002\.jpg\): no such file"):
        item.load_picture()
