"""`--help`: a summary fits its line, options stand under headings, and nothing slow is imported for it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest
from command_line import vli

from vlinstruct.cli.command import HEADINGS

COMMANDS = re.findall(r"^  ([a-z-]+)  ", vli("--help").stdout.decode().split("Commands:")[1], re.MULTILINE)


def test_every_summary_is_a_sentence_that_fits_its_line() -> None:
    lines = vli("--help").stdout.decode().split("Commands:\n")[1].splitlines()
    assert len(lines) == len(COMMANDS) == 13
    assert not [line for line in lines if line.endswith("...") or not line.endswith(".")]


def test_alone_it_shows_examples_and_the_commands_and_no_error() -> None:
    result = vli()
    assert (result.exit_code, result.stdout) == (2, b"")
    assert result.stderr.startswith("vlinstruct ask picture.png")
    assert result.stderr == vli("--help").text == vli("-h").text


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_no_word_of_the_first_page_and_of_help_is_broken(columns: int) -> None:
    alone, wide = vli(columns=columns).stderr, vli(columns=120).stderr
    assert {*wide.split("Usage")[0].split()} <= {*alone.split()}
    page, wide = vli("tune", "--help", columns=columns).text, vli("tune", "--help", columns=120).text
    parts = re.compile(r"[\s-]+")  # a line may end within mini-llama-ema
    assert {part for part in parts.split(wide) if len(part) < 20} <= {*parts.split(page)}
    assert max(map(len, alone.splitlines())) <= columns


@pytest.mark.parametrize("command", ["ask", "optimize", "score", "chat"])
def test_shared_options_stand_under_headings_and_nothing_else_does(command: str) -> None:
    text = vli(command, "--help").stdout.decode()
    headings = re.findall(r"^(\w+):$", text, re.MULTILINE)
    expected = ["Arguments", *HEADINGS]
    assert headings == [heading for heading in expected if heading in headings]
    model = text.split("\nModel:\n")[1].split("\n\n")[0]
    assert {"--backbone", "--adapter", "--device", "--dtype", "--offline"} <= set(re.findall(r"--[a-z]+", model))


def test_help_imports_neither_rich_nor_torch() -> None:
    code = (
        "import sys; from vlinstruct.cli.main import run_command; run_command(['ask', '--help']); "
        "sys.exit(bool({'rich', 'torch', 'yaml', 'PIL'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"convert", "lmms-tasks"}))
def test_a_command_shows_how_it_is_typed_with_options_that_it_has(command: str) -> None:
    page = vli(command, "--help", columns=80).text
    examples = re.findall(rf"^  vlinstruct ({command} .*)$", page, re.MULTILINE)
    assert examples
    assert max(map(len, examples)) <= 66, "a line of 80 columns holds it whole"
    for example in examples:
        typed = {word for word in shlex.split(example) if word.startswith("-")}
        assert typed <= {*re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*", page.replace(example, ""))}
