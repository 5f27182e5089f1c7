"""What is refused, what is cut, and what reaches the model byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Result, vli

COMMANDS = {
    "ask": lambda picture, text: ("ask", picture, "--", text),
    "optimize": lambda picture, text: ("optimize", "--", text, picture),
    "score": lambda picture, text: ("score", picture, "--", text),
}
any_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
Command = Callable[[Path, str], tuple[object, ...]]
AskFile = Callable[..., Result]


@pytest.fixture
def ask_file(picture: Path, tmp_path: Path) -> AskFile:
    """Asks the questions of a file, its strings written as JSON escapes, the last question a harmless one."""

    def ask(*questions: str, image: str = f"pictures/{picture.name}") -> Result:
        lines = [{"image": image, "question": question} for question in questions]
        lines.append({"image": f"pictures/{picture.name}", "question": "fine?"})
        (tmp_path / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return vli("ask", "--data", tmp_path / "items.jsonl", "--max-new-tokens", 2)

    return ask


def assert_one_item_failed(result: Result, code: str) -> None:
    """The bad question is one error record and exit 3; the harmless one is answered."""
    assert result.exit_code == 3
    bad, good = result.records
    assert (bad["status"], bad["code"]) == ("error", code)
    assert len(bad["message"]) <= 300
    assert good["status"] == "ok"
    assert good["question"] == "fine?"


@any_command
@pytest.mark.usefixtures("no_model")
def test_an_empty_text_is_refused(picture: Path, command: Command) -> None:
    assert "it is empty or blank" in vli(*command(picture, "")).refusal(4)


@any_command
@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("text", [" ", "\n\t\r\n", "\u200b\u200d\ufeff", "\u3000\u2800"])
def test_a_text_that_shows_nothing_is_refused(picture: Path, command: Command, text: str) -> None:
    assert "it is empty or blank" in vli(*command(picture, text)).refusal(4)


@pytest.mark.parametrize(("text", "code"), [("", "bad_field"), (" \n", "text_empty"), ("\u200b ", "text_empty")])
def test_blank_questions_of_a_file_are_failed_items(ask_file: AskFile, text: str, code: str) -> None:
    assert_one_item_failed(ask_file(text), code)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_what_the_qformer_has_no_position_for_is_cut_with_one_notice(
    picture: Path, tiny_folders: dict[str, Path], prompts: list[str], kind: str
) -> None:
    question = ("a " * 600).strip()
    result = vli("ask", picture, question, "--backbone", tiny_folders[kind])
    assert result.exit_code == 0
    assert result.lines == ["notice: the Q-Former reads the first 62 of the instruction's 600 tokens"]
    assert prompts == [question]  # the language model reads all of it


@any_command
@pytest.mark.usefixtures("no_model")
def test_a_hundred_thousand_characters_are_refused_at_once(picture: Path, command: Command) -> None:
    line = vli(*command(picture, "a" * 100_000)).refusal(4)
    assert "100,000 characters, at most 20,000 can be used" in line


def test_a_long_question_of_a_file_is_a_failed_item(ask_file: AskFile) -> None:
    assert_one_item_failed(ask_file("a" * 100_000), "text_too_long")


def test_a_prompt_beyond_the_positions_of_llama_is_refused_with_count_and_limit(
    picture: Path, tiny_folders: dict[str, Path], ask_file: AskFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLINSTRUCT_BACKBONE", str(tiny_folders["llama"]))
    question = "a " * 1500
    assert "3002 tokens, the language model takes 2048" in vli("ask", picture, question).refusal(4)
    assert_one_item_failed(ask_file(question), "text_too_long")


def test_a_line_of_ten_megabytes_is_a_failed_item(ask_file: AskFile) -> None:
    assert_one_item_failed(ask_file("a" * 10_000_000), "line_too_long")


def test_a_nul_character_is_kept(ask_file: AskFile, prompts: list[str]) -> None:
    result = ask_file("a\0b")
    assert result.exit_code == 0
    assert prompts[0] == result.records[0]["question"] == "a\0b"


def test_a_nul_character_never_cuts_a_path(ask_file: AskFile, picture: Path) -> None:
    assert_one_item_failed(ask_file("what?", image=f"pictures/{picture.name}\0.txt"), "bad_field")


@any_command
@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("text", ["what\udcff", "\ud800", "\ud83d \ude00"])
def test_lone_surrogates_are_refused(picture: Path, command: Command, text: str) -> None:
    assert "not valid Unicode" in vli(*command(picture, text)).refusal(4)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("option", [("--choices", "yes,n\udcff"), ("--template", "{question}\ud800")])
def test_lone_surrogates_of_options_are_refused(picture: Path, option: tuple[str, str]) -> None:
    line = vli("ask", picture, "what?", *option).refusal(4)
    assert f"({option[0]}): not valid Unicode" in line


def test_lone_surrogates_of_a_file_are_failed_items(ask_file: AskFile) -> None:
    assert_one_item_failed(ask_file("\ud800"), "text_not_unicode")


KEPT = {
    "directions": "\u202eabc\u202c \u2066def\u2069",
    "families_and_accents": "👩‍👩‍👧 e" + "\u0301" * 500,
    "line_ends": " a\r\nb\rc\td\ne ",
    "dashes": "-x --seed",
    "scripts": "было ли это? 这是什么 هل هذا",
}


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT.keys())
def test_text_reaches_the_model_as_it_was_typed(picture: Path, prompts: list[str], text: str) -> None:
    (record,) = vli("ask", picture, "--json", "--", text).records
    assert prompts == [text]
    assert record["question"] == record["instruction"] == text


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT.keys())
def test_text_of_a_file_reaches_the_model_as_it_was_written(ask_file: AskFile, prompts: list[str], text: str) -> None:
    result = ask_file(text)
    assert result.exit_code == 0
    assert prompts == [text, "fine?"]
    assert result.records[0]["question"] == text


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT.keys())
def test_text_is_optimized_and_scored_as_it_was_typed(picture: Path, text: str) -> None:
    (optimized,) = vli("optimize", "--json", "--", text, picture).records
    (scored,) = vli("score", picture, "--json", "--", text).records
    assert optimized["initial"]["text"] == scored["scores"][0]["instruction"] == text
    assert optimized["initial"]["ias"] == pytest.approx(scored["scores"][0]["ias"], abs=3e-5)


@any_command
@pytest.mark.parametrize("text", ["-x", "--what is it?"])
def test_a_text_that_begins_with_a_dash_goes_after_two(picture: Path, command: Command, text: str) -> None:
    name, *arguments = (argument for argument in command(picture, text) if argument != "--")
    assert "Text that begins with '-' goes after '--'." in vli(name, *arguments).refusal(2)
    assert vli(*command(picture, text)).exit_code == 0
