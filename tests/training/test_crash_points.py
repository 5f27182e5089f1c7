"""A handful of the crash points of saving (`crash_points` tries all), and what no single one of them shows."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vlinstruct.errors import ResourceError
from vlinstruct.training.devices import Devices
from vlinstruct.training.job import Progress
from vlinstruct.training.state import Standing, TrainingState, newest_state, save_state
from vlinstruct.training.train import train as run_training

from .training_set import DROPPING, SETTINGS, job, model, result, samples

TESTS = Path(__file__).parent.parent
EVERY = 97  # a prime: about eight of some eight hundred, of every kind


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the trials are forks of one process")
def test_killed_or_refused_at_a_file_operation_it_ends_with_the_same_bits() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    command = [sys.executable, "-m", "tools.survive", "points", "--every", str(EVERY)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| the ")]
    assert {"kill"} < {fault for _, fault, _, _ in rows}
    assert sum(int(tried) for _, _, tried, _ in rows) >= 6


class _Killed(BaseException):
    """Stands in for SIGKILL: nothing in the package catches it, and what was written before is on the disk."""


def test_stopped_while_validating_and_then_killed_it_logs_the_validation_once(
    tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    """The checkpoint is of the update before the validation: what the log says of that does not count yet."""
    settings = replace(SETTINGS, **DROPPING)

    def train(name: str, **watching: Any) -> None:
        learned, backbone = samples(tmp_path / "data"), model(tiny_folders["t5"])
        wanted = job(backbone, learned, tmp_path / name, settings, validation=learned[:3], resume=True)
        run_training(wanted, devices=Devices(cpu=True), progress=Progress(**watching))

    updates: list[Mapping[str, Any]] = []

    def killed(record: Mapping[str, Any]) -> None:
        raise _Killed

    train("whole")
    train("killed", on_step=updates.append, should_stop=lambda: len(updates) == settings.eval_steps)
    assert len(updates) == settings.eval_steps
    with pytest.raises(_Killed):
        train("killed", on_validation=killed)
    train("killed")
    assert result(tmp_path / "killed") == result(tmp_path / "whole")


def test_what_the_system_really_refuses_to_safetensors_is_a_line_for_the_user(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    small = TrainingState(step=1, learning={"a": torch.ones(2)}, optimizer={}, facts={}, standing=Standing(rows=1))
    save_state(tmp_path, small)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ResourceError, match=r"cannot save checkpoint.*File too large"):
            save_state(tmp_path, replace(small, step=2, learning={"a": torch.ones(100_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    state, notices = newest_state(tmp_path)
    assert state is not None
    assert (state.step, notices) == (1, [])


def test_saving_an_update_again_never_loses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a validation that failed and was tried again."""
    state = TrainingState(step=1, learning={"a": torch.ones(2)}, optimizer={}, facts={}, standing=Standing(rows=1))
    save_state(tmp_path, state)
    unlink, removed = os.unlink, []

    def killed_at_the_second(path: Any, **more: Any) -> None:
        if removed:
            raise _Killed
        removed.append(path)
        unlink(path, **more)

    monkeypatch.setattr(os, "unlink", killed_at_the_second)
    with contextlib.suppress(_Killed):
        save_state(tmp_path, state)
    monkeypatch.undo()
    found, notices = newest_state(tmp_path)
    assert found is not None
    assert (found.step, notices) == (1, [])
