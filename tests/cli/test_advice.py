"""No message advises an option that does not exist, nor one that the command which says it lacks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from command_line import vli

import vlinstruct

PACKAGE = Path(vlinstruct.__file__).parent
PLUGIN = PACKAGE / "integrations"
# Rooms that one command alone calls.
OWNERS = {"bench": "bench", "conversion": "convert", "evaluation": "evaluate", "training": "finetune"}
# Of other programs, which a message tells to run.
OF_OTHERS = {"--exclude", "--fsdp_version", "--include_path", "--pictures", "--version"}
OF_LMMS_EVAL = {"--include_path", "--model", "--model_args", "--tasks"}
# What a command says of another one.
OF_OTHER_COMMANDS = {
    ("backbones", "--dtype"),  # the heads of its table are what one types elsewhere
    ("backbones", "--quantize"),
    ("chat", "--overwrite"),  # what is typed behind /save
    ("finetune", "--adapter"),  # the adapter's README tells how it is asked
    ("finetune", "--allow-urls"),  # compared with the advice of a room below, and replaced
    ("finetune", "--quantize"),  # the same
}


@cache
def options_of(command: str) -> frozenset[str]:
    return frozenset(re.findall(r"--[a-z][a-z-]+", vli(command, "--help").text))


@cache
def commands() -> tuple[str, ...]:
    return tuple(re.findall(r"^  ([a-z-]+)  ", vli("--help").text.split("Commands:")[1], re.MULTILINE))


def named_in(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the options that a file's texts name, with the places."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # Of docstrings users see those of commands alone, which are their help.
    unseen = set() if path.parent.name == "cli" else {id(doc) for node in ast.walk(tree) for doc in docstring_of(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in unseen:
            for option in re.findall(r"(?<![\w-])--[a-z][a-z_-]+", node.value):
                yield option.rstrip("-_"), f"{path.relative_to(PACKAGE)}:{node.lineno}"


def docstring_of(node: ast.AST) -> list[ast.expr]:
    body = getattr(node, "body", None)
    return [body[0].value] if isinstance(body, list) and body and isinstance(body[0], ast.Expr) else []


def files_of(command: str) -> list[Path]:
    """Returns the files that speak for one command alone: its own in `cli/`, and its room."""
    name = command.replace("-", "_")
    own = [path for path in (PACKAGE / "cli").glob("*.py") if path.stem == name or path.stem.startswith(f"{name}_")]
    rooms = [room for room, owner in OWNERS.items() if owner == command]
    return own + [path for room in rooms for path in (PACKAGE / room).rglob("*.py")]


def test_every_option_that_a_text_of_the_package_names_exists() -> None:
    known = OF_OTHERS.union(*map(options_of, commands()))
    sources = [path for path in PACKAGE.rglob("*.py") if PLUGIN not in path.parents]
    named = {pair for path in sources for pair in named_in(path)}
    assert len(named) > 50
    assert sorted(pair for pair in named if pair[0] not in known) == []


@pytest.mark.parametrize("command", sorted({*OWNERS.values(), "ask", "backbones", "chat", "optimize"}))
def test_what_one_command_alone_says_names_options_that_it_has(command: str) -> None:
    named = {pair for path in files_of(command) for pair in named_in(path)}
    of_others = OF_OTHERS | {option for other, option in OF_OTHER_COMMANDS if other == command}
    assert named
    assert sorted(pair for pair in named if pair[0] not in options_of(command) | of_others) == []


def test_the_plug_in_names_options_of_lmms_eval_and_of_its_own_program() -> None:
    named = {pair for path in PLUGIN.rglob("*.py") for pair in named_in(path)}
    assert sorted(pair for pair in named if pair[0] not in OF_LMMS_EVAL | {"--output"}) == []  # the last is prepare's
    assert {"--model", "--model_args"} <= {option for option, _ in named}


def test_whoever_may_be_told_to_overwrite_can() -> None:
    for command in ("ask", "optimize", "score", "evaluate"):
        assert "--overwrite" in options_of(command)


def test_whoever_reads_pictures_that_are_typed_can_raise_their_limits() -> None:
    for command in ("ask", "optimize", "score", "chat", "evaluate", "finetune"):
        assert {"--max-pixels", "--allow-truncated"} <= options_of(command)
