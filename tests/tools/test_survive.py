"""A small share of what `survive` does: what a stranger damaged ends in one of our errors, what was killed goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlinstruct.errors import ImageError, VlinstructError

from . import survive

TESTS = Path(__file__).parent.parent


@pytest.fixture
def trial(tmp_path: Path) -> survive.Trial:
    return survive.Trial(seed=0, failing=tmp_path / "failing", scratch=tmp_path)


@pytest.mark.parametrize("kind", ["pictures", "data"])
def test_damaged_pictures_and_data_are_read_or_refused(kind: str, trial: survive.Trial, tmp_path: Path) -> None:
    expected = ImageError if kind == "pictures" else VlinstructError
    for subject in survive.KINDS[kind](tmp_path):
        subject.read(subject.folder)  # undamaged, it can be read
        mutants = [trial.mutant(subject, number) for number in range(12)]
        assert mutants == [trial.mutant(subject, number) for number in range(12)]
        for number, mutant in enumerate(mutants):
            (subject.folder / subject.file).write_bytes(mutant)
            assert survive.why_not(subject, subject.folder, expected) is None, f"{subject.name}:{number}"


def test_an_error_that_is_not_ours_is_found(tmp_path: Path) -> None:
    def read(folder: Path) -> None:
        raise KeyError(folder)

    subject = survive.Subject(name="", folder=tmp_path, file="", mutate=lambda rng, content: content, read=read)
    found = survive.why_not(subject, tmp_path, VlinstructError)
    assert found is not None
    assert found.startswith("KeyError at test_survive.py")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the trials are forks of one process")
@pytest.mark.parametrize("asked", ["pictures folders data adapters checkpoints --mutants 40", "kills --kills 3"])
def test_a_share_of_mutants_and_kills_holds(asked: str, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    failing = str(tmp_path / "failing")
    command = [sys.executable, "-m", "tools.survive", *asked.split(), "--seed", "1", "--failing", failing]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
