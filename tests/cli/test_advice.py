"""No message advises an option that does not exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from command_line import vli

import vlinstruct

# lmms-eval's plug-in speaks of lmms-eval's own options.
PACKAGE = Path(vlinstruct.__file__).parent
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "integrations" not in path.relative_to(PACKAGE).parts)
# Of other programs, which a message tells to run.
OF_OTHERS = {"--exclude", "--fsdp_version", "--include_path", "--pictures", "--version"}


def options() -> set[str]:
    """Every option of every command."""
    commands = re.findall(r"^  ([a-z-]+)  ", vli("--help").stdout.decode().split("Commands:")[1], re.MULTILINE)
    pages = [vli("--help").text, *(vli(command, "--help").text for command in commands)]
    return {option for page in pages for option in re.findall(r"--[a-z][a-z-]+", page)}


def test_every_option_that_a_text_of_the_package_names_exists() -> None:
    known = options() | OF_OTHERS
    named = {
        (option, f"{path.name}:{node.lineno}")
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z_-]+", node.value)
    }
    assert len(named) > 50
    assert sorted(place for place in named if place[0].rstrip("-_") not in known) == []


def test_whoever_may_be_told_to_overwrite_can() -> None:
    for command in ("ask", "optimize", "score", "evaluate"):
        assert "--overwrite" in vli(command, "--help").text
