"""`ask --ocr`: the picture's words come before the question, and are words only."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import vli

from vlinstruct.media import ocr

Pictures = Callable[[int], list[Path]]
EXAMPLE = Path(__file__).parents[2] / "examples" / "pictures" / "sign.png"


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands for the library: what it will read in every picture."""
    words = ["{question}", "STOP", "here"]
    monkeypatch.setattr("vlinstruct.media.ocr.ocr_tokens", lambda image: tuple(words))
    monkeypatch.setattr("vlinstruct.media.ocr.require_ocr", lambda: None)
    return words


def test_the_instruction_is_the_papers_and_words_are_no_fields(picture: Path, words: list[str]) -> None:
    (record,) = vli("ask", picture, "what {tokens} is it?", "--ocr", "--json").records
    assert record["question"] == "what {tokens} is it?"
    assert record["ocr_tokens"] == "{question}, STOP, here"
    expected = "OCR tokens: {question}, STOP, here Question: what {tokens} is it? \n Short answer:"
    assert record["instruction"] == expected


def test_a_template_says_where_the_words_go(picture: Path, words: list[str]) -> None:
    command = ("ask", picture, "what?", "--ocr", "--json", "--template")
    assert vli(*command, "{question} ({tokens})").records[0]["instruction"] == "what? ({question}, STOP, here)"
    assert "{tokens}, where --ocr puts" in vli(*command, "{question}").refusal(2)


def test_words_change_the_answer_of_a_batch_and_its_resume_key(
    pictures: Pictures, words: list[str], tmp_path: Path
) -> None:
    command = ("ask", *pictures(2), "what?", "-o", tmp_path / "out.jsonl")
    assert vli(*command, "--ocr").exit_code == 0
    assert "made with other arguments" in vli(*command).refusal(4)


def test_a_missing_library_is_named_before_a_model_is_loaded(
    picture: Path, no_model: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    ocr._reader.cache_clear()
    assert "pip install 'vlinstruct[ocr]'" in vli("ask", picture, "what?", "--ocr").refusal(6)


@pytest.mark.skipif(importlib.util.find_spec("rapidocr") is None, reason="the extra ocr is not installed")
def test_a_sign_is_read() -> None:
    (record,) = vli("ask", EXAMPLE, "what is written?", "--ocr", "--json", "--backbone", "mini").records
    assert record["ocr_tokens"] == "STOP"
