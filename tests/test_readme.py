"""What the README shows is what happens."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_block_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(block, "README.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == block.count("print(")


def test_the_first_command_answers_the_example_picture() -> None:
    (command,) = re.findall(r"^    python3 -m venv .* && \.venv/bin/(vlinstruct ask .*)$", README, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert len(done.stdout.strip()) > 0
    assert done.stderr == ""


def test_the_test_command_is_the_one_that_the_checks_run() -> None:
    assert len(re.findall(r"^ *python3 -m venv .* -m pytest$", README, re.MULTILINE)) == 1


def test_every_option_the_readme_names_exists() -> None:
    named = set(re.findall(r"`(--[a-z-]+)", README)) | set(re.findall(r"vlinstruct \w+ (--[a-z-]+)", README))
    helps = "".join(
        subprocess.run(
            [sys.executable, "-m", "vlinstruct", command, "--help"], capture_output=True, text=True, check=True
        ).stdout
        for command in ("ask", "optimize", "score", "backbones", "bench", "finetune", "evaluate", "convert", "chat")
    )
    assert not {option for option in named - {"--help"} if option not in helps}
