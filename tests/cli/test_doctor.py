"""`vlinstruct doctor`: what it prints, how it ends, and that it changes and downloads nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import vli
from huggingface_hub import constants


@pytest.fixture(autouse=True)
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and no connection."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("a connection was opened"))


@pytest.fixture
def damaged(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_folders["t5"], tmp_path / "model"))
    (folder / "tokenizer.json").unlink()
    return folder


def findings(*arguments: object) -> list[dict[str, Any]]:
    (record,) = vli("doctor", "--offline", "--json", *arguments).records
    found: list[dict[str, Any]] = record["findings"]
    return found


def test_mini_is_sound_and_it_says_so() -> None:
    lines = vli("doctor", "--offline", "--backbone", "mini").text.splitlines()
    assert lines[0] == "this environment"
    assert "backbone mini" in lines
    assert any(line.startswith("  ok       tensors") for line in lines)
    assert lines[-1].endswith("problems: 0")


def test_what_is_fine_is_one_line_per_check_and_a_notice_has_its_fix_below() -> None:
    lines = vli("doctor", "--offline", "--backbone", "flant5-xl").text.splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.startswith("  notice   backbone")]
    assert "Salesforce/instructblip-flan-t5-xl is not in the cache, 16 GB to download" in lines[place]
    assert (
        lines[place + 1].strip() == "fix: Get it with: hf download Salesforce/instructblip-flan-t5-xl --exclude '*.bin'"
    )
    assert len([line for line in lines if line.startswith("  ok       package")]) == 1


def test_it_is_one_record() -> None:
    (record,) = vli("doctor", "--offline", "--json", "--backbone", "mini").records
    assert {name: record[name] for name in ("schema", "id", "status")} == {
        "schema": "vlinstruct.doctor/1",
        "id": "mini",
        "status": "ok",
    }
    assert all(one.keys() == {"check", "level", "found", "fix"} for one in record["findings"])
    assert {one["level"] for one in record["findings"]} <= {"ok", "notice"}
    assert all((one["level"] == "ok") == (one["fix"] is None) for one in record["findings"])


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_folder_whose_name_moves_the_cursor_is_shown_escaped_in_a_pipe_too(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")  # every escape sequence is the name's
    folder = damaged.rename(tmp_path / "a\x1b[2J\u202eb")
    result = vli("doctor", "--offline", "--backbone", folder, is_terminal=is_terminal)
    assert result.stdout.decode().replace("\n", "").isprintable()
    assert rf"backbone {tmp_path}/a\x1b[2J\u202eb" in result.stdout.decode().splitlines()
    (record,) = vli("doctor", "--offline", "--json", "--backbone", folder).records
    assert record["id"] == str(folder)


def test_a_problem_of_the_backbone_ends_with_5(damaged: Path) -> None:
    result = vli("doctor", "--offline", "--backbone", damaged)
    assert result.exit_code == 5
    (line,) = result.lines
    assert line.startswith("error: problems found (")
    assert "vocabulary. The report says how to fix each" in line
    assert b"problem  vocabulary        tokenizer.json is missing" in result.stdout
    record = vli("doctor", "--offline", "--json", "--backbone", damaged).records[0]
    assert (record["status"], record["code"]) == ("error", "checkpoint_refused")
    assert record["message"] == line.removeprefix("error: ")


def test_a_problem_of_the_environment_ends_with_6_and_comes_first(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLINSTRUCT_DEVICE", "nonsense")
    for backbone in ("mini", damaged):
        result = vli("doctor", "--offline", "--backbone", backbone)
        assert result.exit_code == 6
        assert result.lines == ["error: problems found (this environment): device. The report says how to fix each"]


def test_garbage_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "maybe")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    result = vli("doctor", "--offline", "--backbone", "mini")
    assert "'maybe' is neither on nor off" in result.text
    assert "hf_secret" not in result.text + result.stderr


def test_the_default_backbone_is_the_environments(tiny_folders: dict[str, Path]) -> None:
    assert f"the folder {tiny_folders['t5']}" in [one["found"] for one in findings()]


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_is_never_wider_than_it_is(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/short/hub")  # a path is never cut
    monkeypatch.delenv("VLINSTRUCT_BACKBONE")
    monkeypatch.setenv("NO_COLOR", "1")
    result = vli("doctor", "--offline", "--backbone", "mini", is_terminal=True, columns=columns)
    assert max(map(len, result.text.splitlines())) <= columns


def test_what_a_folder_is_called_cannot_move_the_cursor(damaged: Path) -> None:
    folder = damaged.rename(damaged.parent / "a\x1b[2Jb")
    result = vli("doctor", "--offline", "--backbone", folder, is_terminal=True)
    assert result.exit_code == 5
    assert b"\x1b[2J" not in result.stdout
    assert "\x1b" not in result.stderr


def test_it_writes_nothing(tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    folder = Path(shutil.copytree(tiny_folders["llama"], tmp_path / "model"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    findings("--backbone", folder)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_without_torch_it_says_that_torch_is_missing() -> None:
    code = """
import sys
sys.modules["torch"] = None
from vlinstruct.cli.main import run_command
sys.exit(run_command(["doctor", "--offline", "--json"]))
"""
    environment = {name: value for name, value in os.environ.items() if name != "VLINSTRUCT_BACKBONE"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ran.returncode == 6, ran.stderr
    found = {one["check"]: one["found"] for one in json.loads(ran.stdout)["findings"]}
    assert found["processor"] == "this check failed (ModuleNotFoundError)"
    assert found["backbone"] == "not examined: torch cannot be imported"
    assert "Traceback" not in ran.stderr
