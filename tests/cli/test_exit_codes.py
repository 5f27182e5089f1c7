"""A command ends with the code that the command line's README gives to what happened."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import vli

ROOT = Path(__file__).parent.parent.parent
GUIDE = (ROOT / "vlinstruct" / "cli" / "README.md").read_text(encoding="utf-8")
MEANINGS = dict(re.findall(r"^\| (\d+) \| (.*) \|$", GUIDE, re.MULTILINE))


@pytest.mark.parametrize(
    ("exit_code", "meaning", "arguments"),
    [
        (0, "ok", ["ask", "good.png", "what?"]),
        (2, "usage", ["ask", "good.png"]),
        (3, "some items failed", ["ask", "good.png", "none.png", "what?"]),
        (4, "bad input", ["ask", "none.png", "what?"]),
        (4, "bad input", ["ask", "good.png", " "]),
        (4, "every item failed", ["score", "*.txt", "what?"]),
        (4, "every item failed", ["ask", "none.png", "bad.txt", "what?"]),
        (5, "refused", ["optimize", "what?", "good.png", "--backbone", "none"]),
        (5, "refused", ["optimize", "what?", "good.png", "--adapter", "./none"]),
        (9, "network", ["score", "good.png", "what?", "--backbone", "nobody/nothing", "--offline"]),
    ],
)
def test_the_exit_code_is_the_one_that_the_readme_gives(
    picture: Path, monkeypatch: pytest.MonkeyPatch, exit_code: int, meaning: str, arguments: list[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(picture.parent)
    picture.rename("good.png")
    Path("bad.txt").write_text("no picture")
    assert meaning in MEANINGS[str(exit_code)]
    assert vli(*arguments).exit_code == exit_code


@pytest.mark.parametrize(
    ("error", "exit_code", "words"),
    [
        (RuntimeError("secret at 0x7f"), 1, "a bug in vlinstruct: RuntimeError at test_exit_codes.py:"),
        (MemoryError(), 6, "memory"),
    ],
)
def test_what_nobody_foresaw_is_one_line_without_its_own_text(
    picture: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, exit_code: int, words: str
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr("vlinstruct.operations.Score.run", fail)
    line = vli("score", picture, "what?").refusal(exit_code)
    assert words in line
    assert "secret" not in line
