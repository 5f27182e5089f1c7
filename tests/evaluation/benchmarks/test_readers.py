"""The official files of every benchmark become the items that the paper asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlinstruct.evaluation.benchmark import Item
from vlinstruct.evaluation.benchmarks import BENCHMARKS
from vlinstruct.evaluation.benchmarks.mini import TASKS
from vlinstruct.evaluation.reading.files import read_items

from ..official_files import WRITERS, flickr30k_of_lavis, iconqa_of_folders, write

# The second item of each: what it is called, how it is asked, what is right, what is ranked.
EXPECTED = {
    "flickr30k": ("32", "A short image description:", ("Two dogs run.",) * 2, ()),
    "nocaps": ("8", "A short image description:", ("A red lamp.",), ()),
    "vsr": ("2", "Based on the image, is this statement true or false? The dog is on the bed.", ("false",), ()),
    "gqa": ("202", "Question: Is it red? \n Short answer:", ("yes",), ()),
    "iconqa": (
        "12",
        "Question: What has been drawn? Options: (a) circle (b) square \n Answer:",
        ("circle",),
        ("circle", "square"),
    ),
    "vizwiz": (
        "VizWiz_val_00000008",
        "Answer the question based on the image. Reply in one phrase/word or say 'unanswerable'. "
        "Question: And this? \n Short answer:",
        ("unanswerable",) * 9 + ("",),
        (),
    ),
    "textvqa": (
        "34603",
        f"OCR tokens: {', '.join(map(str, range(30)))} Question: What number? \n Short answer:",
        ("81",) * 10,
        (),
    ),
    "visdial": (
        "186",
        "Question: is it sunny \n Short answer:",
        ("i can't tell",),
        ("no", "i can't tell"),
    ),
    "scienceqa": (
        "5",
        "Given the image, choose the correct option for the following question. "
        "Question: Which of these lives in water? \n Options: (a) an owl (b) a trout",
        ("a trout",),
        ("an owl", "a trout"),
    ),
    "hatefulmemes": (
        "dev_seen-54",
        "This is an image with:  written on it. Is it hateful?",
        ("yes",),
        ("yes", "no"),
    ),
}


def items(name: str, data: Path, limit: int | None = None) -> list[Item]:
    return read_items(BENCHMARKS[name], data / name, limit=limit)


def said(found: list[Item]) -> list[tuple[object, ...]]:
    return [(one.id, one.instructions["canonical"], one.references, one.candidates) for one in found]


def test_they_are_the_tasks_that_mini_imitates() -> None:
    assert [benchmark.task for benchmark in BENCHMARKS.values()] == list(TASKS)
    assert list(BENCHMARKS) == list(WRITERS)


def test_their_parts_are_as_large_as_the_paper_says() -> None:
    counts = (1000, 4500, 1222, 12578, 6316, 4319, 5000, 2064, 2017, 1040)
    assert tuple(benchmark.num_items for benchmark in BENCHMARKS.values()) == counts


@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_item_is_what_the_paper_asks(name: str, tmp_path: Path) -> None:
    found = items(name, write(tmp_path, name))
    identity, instruction, references, candidates = EXPECTED[name]
    assert said(found)[1] == (f"{name}-{identity}", instruction, references, candidates)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_item_can_be_asked_and_answered(name: str, tmp_path: Path) -> None:
    task = BENCHMARKS[name].task
    found = items(name, write(tmp_path, name))
    assert len({item.id for item in found}) == len(found) == (3 if name == "hatefulmemes" else 2)
    for item in found:
        assert item.task == name
        assert list(item.instructions) == ["canonical"]
        assert item.load_picture().size == (20, 16)
        assert bool(item.candidates) is task.is_ranked
        assert not task.is_ranked or item.references[0] in item.candidates
        assert len(item.references) == (10 if task.metric == "vqa_accuracy" else len(item.references))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_limit_takes_the_first_items(name: str, tmp_path: Path) -> None:
    data = write(tmp_path, name)
    assert said(items(name, data, limit=1)) == said(items(name, data))[:1]


def test_flickr30k_in_lavis_form_is_the_same(tmp_path: Path) -> None:
    write(tmp_path / "a", "flickr30k")
    flickr30k_of_lavis(tmp_path / "b" / "flickr30k")
    assert said(items("flickr30k", tmp_path / "a")) == said(items("flickr30k", tmp_path / "b"))


def test_iconqa_in_a_folder_per_problem_is_the_same(tmp_path: Path) -> None:
    write(tmp_path / "a", "iconqa")
    iconqa_of_folders(tmp_path / "b" / "iconqa")
    assert said(items("iconqa", tmp_path / "a")) == said(items("iconqa", tmp_path / "b"))


def test_a_dialogue_is_asked_its_last_round(tmp_path: Path) -> None:
    first, _ = items("visdial", write(tmp_path, "visdial"))
    assert first.instructions["canonical"] == "Question: is the dog big \n Short answer:"
    assert first.references == ("no",)
    assert first.candidates == ("yes", "no", "i can't tell")


def test_a_meme_of_both_parts_is_asked_twice(tmp_path: Path) -> None:
    found = items("hatefulmemes", write(tmp_path, "hatefulmemes"))
    assert [item.id for item in found][::2] == ["hatefulmemes-dev_seen-53", "hatefulmemes-dev_unseen-53"]
    assert [item.references for item in found] == [("no",), ("yes",), ("no",)]


def test_braces_in_a_text_are_characters(tmp_path: Path) -> None:
    first, _ = items("textvqa", write(tmp_path, "textvqa"))
    assert first.instructions["canonical"].startswith("OCR tokens: STOP, {tokens} Question: What does")


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    write(tmp_path, "gqa", "vsr")
    for path in (tmp_path / "gqa" / "testdev_balanced_questions.json", tmp_path / "vsr" / "test.jsonl"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(items("gqa", tmp_path)) == len(items("vsr", tmp_path)) == 2


def test_a_benchmark_is_called_as_its_file_is() -> None:
    assert [benchmark.task.name for benchmark in BENCHMARKS.values()] == list(BENCHMARKS)
