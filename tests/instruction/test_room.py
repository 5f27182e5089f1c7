"""The room as a whole: its doctests, its public words, what importing it costs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import vlinstruct.instruction as room
from vlinstruct.backend import Backend

MODULES = [module.name for module in pkgutil.iter_modules(room.__path__, "vlinstruct.instruction.")]


@pytest.mark.parametrize("name", MODULES)
def test_doctests_hold(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", ["rewrite", "score", "rank", "compare", "optimize"])
def test_a_word_of_the_room_is_the_function_and_not_its_file(name):
    assert callable(getattr(room, name))


def test_three_methods_make_a_backend(fake):
    methods = {name for name in vars(Backend) if not name.startswith("_") and callable(getattr(Backend, name))}
    with_defaults = {"stream", "num_tokens", "prepare", "knows", "attention"}
    assert methods - with_defaults == {"see", "write", "score"} <= vars(fake).keys()


def test_importing_the_room_imports_nothing_heavy():
    heavy = "{'torch', 'yaml', 'numpy', 'transformers', 'PIL'}"
    code = f"import sys, vlinstruct.instruction; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
