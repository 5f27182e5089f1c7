"""What chat models are asked: lmms-eval's prompts, letter for letter, where it has the task."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlinstruct.evaluation.benchmarks import BENCHMARKS
from vlinstruct.evaluation.reading.files import read_items
from vlinstruct.evaluation.reading.items import for_chat
from vlinstruct.evaluation.selection import without_ocr_tokens

from ..official_files import dump, example, write

SHORT = "\nAnswer the question using a single word or phrase."
CAPTION = "Provide a one-sentence caption for the provided image."

# The second item of each: how it is asked, what is right, what is ranked.
EXPECTED = {
    "flickr30k": (CAPTION, ("Two dogs run.",) * 2, ()),
    "nocaps": (CAPTION, ("A red lamp.",), ()),
    "vsr": (f"Based on the image, is this statement true or false? The dog is on the bed.{SHORT}", ("false",), ()),
    "gqa": (f"Is it red?{SHORT}", ("yes",), ()),
    "iconqa": (
        "Given a set of images and a question, please provide the answer to the question.\n"
        "Question: What has been drawn?.\nOptions:\nA. circle\nB. square\n"
        "Please answer with the option letter from the given choices directly.",
        ("A",),
        ("A", "B"),
    ),
    "vizwiz": (
        f"And this?\nWhen the provided information is insufficient, respond with 'Unanswerable'.{SHORT}",
        ("unanswerable",) * 9 + ("",),
        (),
    ),
    "textvqa": (
        f"What number?\nReference OCR token: {', '.join(map(str, range(30)))}{SHORT}",
        ("81",) * 10,
        (),
    ),
    "visdial": (f"is it sunny{SHORT}", ("i can't tell",), ("no", "i can't tell")),
    "scienceqa": (
        "Which of these lives in water?\nA. an owl\nB. a trout\n"
        "Answer with the option's letter from the given choices directly.",
        ("B",),
        ("A", "B"),
    ),
    "hatefulmemes": (
        f"This is an image with:  written on it. Is it hateful?{SHORT}",
        ("yes",),
        ("yes", "no"),
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_item_is_asked_as_chat_models_are_asked_it(name: str, tmp_path: Path) -> None:
    benchmark = BENCHMARKS[name]
    item = read_items(benchmark, write(tmp_path, name) / name)[1]
    chat = for_chat(item, benchmark.chat_instruction)
    assert (chat.instructions["canonical"], chat.references, chat.candidates) == EXPECTED[name]
    assert (chat.id, chat.target, chat.num_ocr_tokens) == (item.id, item.target, item.num_ocr_tokens)


def test_the_hint_of_a_problem_is_its_context(tmp_path: Path) -> None:
    problem = {**example("scienceqa"), "hint": "Trout have {gills}."}
    dump(write(tmp_path, "scienceqa") / "scienceqa" / "problems.json", {str(place): problem for place in (3, 4, 5, 6)})
    benchmark = BENCHMARKS["scienceqa"]
    item = read_items(benchmark, tmp_path / "scienceqa")[0]
    assert "gills" not in item.instructions["canonical"]
    chat = for_chat(item, benchmark.chat_instruction)
    assert chat.instructions["canonical"].startswith("Context: Trout have {gills}.\nWhich of these lives")


def test_no_tokens_are_shown_where_none_are_to_be(tmp_path: Path) -> None:
    (benchmark,) = without_ocr_tokens([BENCHMARKS["textvqa"]])
    item = read_items(benchmark, write(tmp_path, "textvqa") / "textvqa")[1]
    assert for_chat(item, benchmark.chat_instruction).instructions["canonical"] == f"What number?{SHORT}"
