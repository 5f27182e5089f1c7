"""What ships as `vlinstruct.mini` is what commands need; the training that made its weights does not ship."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import vlinstruct.mini

ROOT = Path(__file__).parents[2]
# `evaluate mini`, `finetune` on example data, `bench --acceptance`.
USERS = ("vlinstruct.evaluation.benchmarks.mini", "vlinstruct.mini.example_data", "vlinstruct.bench.replay")


def test_commands_need_every_module_of_it() -> None:
    script = f"import sys, {', '.join(USERS)}; print(*(name for name in sys.modules if 'mini' in name.split('.')))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = {module.name for module in pkgutil.walk_packages(vlinstruct.mini.__path__, "vlinstruct.mini.")}
    assert modules - set(done.stdout.split()) == set()


def test_the_wheel_holds_no_training_of_it() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = settings["tool"]["setuptools"]["packages"]["find"]["include"]
    training = [f"examples.{name}" for name in ("", "pretrain_mini")] + ["pretrain_mini", "examples"]
    assert not [name for name in training for pattern in included if fnmatch(name, pattern)]
    assert not list((ROOT / "vlinstruct" / "mini").rglob("*pretrain*"))


def test_the_library_does_not_know_its_examples() -> None:
    importing = re.compile(r"^\s*(?:from|import) (?:examples|pretrain_mini)\b", re.MULTILINE)
    paths = (ROOT / "vlinstruct").rglob("*.py")
    assert [path for path in paths if importing.search(path.read_text(encoding="utf-8"))] == []
