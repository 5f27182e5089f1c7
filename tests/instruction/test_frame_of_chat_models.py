"""What stands around a question in the wordings that chat models are evaluated with is kept, and no part of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlinstruct.evaluation.benchmarks import BENCHMARKS
from vlinstruct.evaluation.reading.files import read_items
from vlinstruct.evaluation.reading.items import for_chat
from vlinstruct.instruction.content import content_changes, frame

from ..evaluation.official_files import write

QUESTIONS = {
    "vsr": "Based on the image, is this statement true or false? The cat is under the table.",
    "gqa": "What is on the shelf?",
    "iconqa": "How many are there?.",
    "vizwiz": "What is this?",
    "textvqa": "What does the sign say?",
    "visdial": "is the dog big",
    "scienceqa": "Which is a solid?",
    "hatefulmemes": "This is an image with: when the bus is late again written on it. Is it hateful?",
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_question_alone_is_rewritten(name: str, tmp_path: Path) -> None:
    benchmark = BENCHMARKS[name]
    item = read_items(benchmark, write(tmp_path, name) / name)[0]
    instruction = for_chat(item, benchmark.chat_instruction).instructions["canonical"]
    before, question, after = frame(instruction)
    assert before + question + after == instruction
    assert question == QUESTIONS[name]
    assert not content_changes(instruction, before + question + after)


def test_a_line_that_asks_something_is_no_frame() -> None:
    for text in ("Look at this.\nAnswer the riddle.", "Answer with one word.", "What is it?\nWhat does it say?"):
        assert frame(text) == ("", text, "")


def test_the_frame_is_found_in_linear_time() -> None:
    text = "What?" + "\nAnswer with" * 1500 + "\n" * 2000
    assert frame(text)[0] == ""
