"""What every refusal has in common, whatever was wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import vli

from .bad_pictures import CASES, make_bad

# A folder's name that clears a screen, breaks a line, turns it round, rings, and is longer than a message may be.
HOSTILE = "a\x1b[2J\n\r\u202e\x07\x9b31m" + "x" * 200
# What is typed as a text, and the exit code.
TEXTS = {
    "no_letter": ("", 4),
    "spaces": (" \t\r\n", 4),
    "zero_width": ("\u200b\u2060\ufeff", 4),
    "escapes_alone": ("\x1b\x9b\u202e", 4),
    "not_unicode": ("what\udcff", 4),
    "half_a_character": ("\ud83d", 4),
    "too_long": ("\x1b[31m" + "a" * 100_000, 4),
    "like_an_option": ("--\x1b[2J" + "x" * 1000, 2),
}
Typed = Callable[[str, Path], tuple[str, ...]]
COMMANDS: dict[str, Typed] = {
    "ask": lambda text, picture: ("ask", str(picture), text),
    "score": lambda text, picture: ("score", str(picture), text),
    "optimize": lambda text, picture: ("optimize", text, str(picture)),
}


def typed_picture(command: str, case: str, folder: Path) -> tuple[str, ...]:
    folder = folder / HOSTILE
    folder.mkdir()
    path, _ = make_bad(case, folder)
    return ("chat", str(path)) if command == "chat" else COMMANDS[command]("what is it?", path)


PICTURES = [
    pytest.param(
        lambda picture, command=command, case=case: typed_picture(command, case, picture.parent),
        4,
        id=f"{command}-{case}",
    )
    for command in (*COMMANDS, "chat")
    for case in CASES
]
WORDS = [
    pytest.param(
        lambda picture, command=command, text=text: COMMANDS[command](text, picture), code, id=f"{command}-{case}"
    )
    for command in COMMANDS
    for case, (text, code) in TEXTS.items()
]


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(("typed", "exit_code"), [*PICTURES, *WORDS])
def test_whatever_is_bad_is_one_short_printable_line_on_stderr_and_nothing_on_stdout(
    picture: Path, typed: Callable[[Path], tuple[str, ...]], exit_code: int
) -> None:
    command = typed(picture)
    in_a_pipe, on_a_terminal = (
        vli(*command, stdin=b"what?\n", is_terminal=is_terminal) for is_terminal in (False, True)
    )
    line = in_a_pipe.refusal(exit_code)
    assert in_a_pipe.stderr == f"{line}\n"
    assert "0x" not in line
    assert on_a_terminal.refusal(exit_code) == line
    in_ascii = vli(*command, stdin=b"what?\n", encoding="ascii").refusal(exit_code)
    assert in_ascii.isascii()
