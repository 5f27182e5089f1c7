"""The room as a whole: its doctests, its public words, what importing it costs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import vlinstruct.instruction as room

MODULES = [module.name for module in pkgutil.iter_modules(room.__path__, "vlinstruct.instruction.")]


@pytest.mark.parametrize("name", MODULES)
def test_doctests_hold(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", ["rewrite", "score", "rank", "compare", "optimize"])
def test_a_word_of_the_room_is_the_function_and_not_its_file(name):
    assert callable(getattr(room, name))


def test_the_fake_is_an_instruction_model(fake):
    methods = [name for name in vars(room.InstructionModel) if not name.startswith("_")]
    assert methods == ["encode", "generate_text", "generate", "token_nll"]
    assert all(callable(getattr(fake, name)) for name in methods)


def test_importing_the_room_imports_nothing_heavy():
    heavy = "{'torch', 'yaml', 'numpy', 'transformers', 'PIL'}"
    code = f"import sys, vlinstruct.instruction; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
