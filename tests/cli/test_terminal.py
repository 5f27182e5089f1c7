"""What could move a cursor is escaped on a terminal, and always in JSON."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import vli

from vlinstruct.cli.terminal import Talk

from .conftest import Pictures

Writes = Callable[[str], None]

# What is typed or written, what a terminal shows of it, and its JSON.
ESCAPED = {
    "override": ("\u202egnp.exe", r"\u202egnp.exe", rb"\u202egnp.exe"),
    "isolate": ("a\u2066b\u2069", r"a\u2066b\u2069", rb"a\u2066b\u2069"),
    "clear": ("a\x1b[2Jb", r"a\x1b[2Jb", rb"a\u001b[2Jb"),
    "title": ("\x1b]0;title\x07", r"\x1b]0;title\x07", rb"\u001b]0;title\u0007"),
    "c1": ("a\x9b31mb\x7f", r"a\x9b31mb\x7f", rb"a\u009b31mb\u007f"),
    "return": ("good\rbad", r"good\rbad", rb"good\rbad"),
    "script": ("<script>\x1b[31m", r"<script>\x1b[31m", rb"<script>\u001b[31m"),
}
escaped = pytest.mark.parametrize(("text", "shown", "in_json"), ESCAPED.values(), ids=ESCAPED.keys())


@pytest.fixture(autouse=True)
def no_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them every escape sequence is a stranger's."""
    monkeypatch.setenv("NO_COLOR", "1")


def assert_is_safe(stdout: bytes) -> None:
    """Nothing but text, newlines and tabs."""
    assert stdout.decode().replace("\n", "").replace("\t", "").isprintable()


@escaped
def test_what_was_typed_is_escaped_on_a_terminal(picture: Path, text: str, shown: str, in_json: bytes) -> None:
    for command in (
        ("score", picture, text),
        ("optimize", text, picture, "--answer", "--max-new-tokens", 2),
        ("ask", picture, "what?", "--choices", f"yes,{text}"),
    ):
        result = vli(*command, is_terminal=True)
        assert_is_safe(result.stdout)
        assert shown in result.text


@escaped
def test_what_was_typed_stands_in_json_as_escapes(picture: Path, text: str, shown: str, in_json: bytes) -> None:
    for is_terminal in (False, True):
        result = vli("score", picture, text, "--json", is_terminal=is_terminal)
        assert_is_safe(result.stdout)
        assert in_json in result.stdout
        assert result.records[0]["scores"][0]["instruction"] == text


@escaped
def test_an_answer_is_escaped_on_a_terminal_and_as_it_is_in_a_pipe(
    picture: Path, writes: Writes, text: str, shown: str, in_json: bytes
) -> None:
    writes(text)
    assert vli("ask", picture, "what?", is_terminal=True).text == shown + "\n"
    assert vli("ask", picture, "what?").text == text + "\n"
    result = vli("ask", picture, "what?", "--json", is_terminal=True)
    assert_is_safe(result.stdout)
    assert in_json in result.stdout
    assert result.records[0]["answer"] == text


@escaped
def test_the_records_of_a_batch_are_safe_on_a_terminal(
    pictures: Pictures, writes: Writes, text: str, shown: str, in_json: bytes
) -> None:
    writes(text)
    result = vli("optimize", "what?", *pictures(2), "--quiet", "--select", "paper", is_terminal=True)
    assert_is_safe(result.stdout)
    assert result.text.count(shown.strip().replace("\\n", "\n")) == 2
    result = vli("optimize", "what?", *pictures(2), "--quiet", "--json", is_terminal=True)
    assert_is_safe(result.stdout)
    assert [record["rewritten"]["text"] for record in result.records] == [text.strip()] * 2


def test_an_answer_keeps_its_lines(picture: Path, writes: Writes) -> None:
    writes("one\n\ttwo")
    assert vli("ask", picture, "what?", is_terminal=True).text == "one\n\ttwo\n"


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "\u202eabc", "a\nb"])
def test_what_was_typed_is_escaped_in_errors(picture: Path, text: str) -> None:
    for command in (
        ("ask", picture, "what?", "--backbone", text),
        ("ask", picture, "what?", "--device", text),
        ("ask", picture, "what?", "--select", text),
        ("ask", f"{text}.png", "what?"),
        ("optimize", "what?", picture, "--templates", text),
        ("ask", picture, "what?", f"--{text}"),
    ):
        result = vli(*command, is_terminal=True)
        assert result.refusal(result.exit_code)
        assert result.exit_code in (2, 4, 5)


def test_what_the_library_logs_is_said_once_and_of_very_many_pictures_the_number(
    capsys: pytest.CaptureFixture[str],
) -> None:
    talk = Talk(quiet=False)
    with talk.listening():
        for number in [*range(25), 0, 1]:
            for room in ("media.images", "chat"):
                logging.getLogger(f"vlinstruct.{room}").warning("%s %d is odd", room, number)
    lines = capsys.readouterr().err.splitlines()
    of_pictures = [f"notice: media.images {number} is odd" for number in range(10)]
    assert [line for line in lines if "images" in line] == of_pictures
    assert [line for line in lines if "chat" in line] == [f"notice: chat {number} is odd" for number in range(25)]
    assert lines[-1] == "notice: 15 more notices of pictures are not shown."
