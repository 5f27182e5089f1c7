"""Every error has the exit code that the command line's README promises."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest

from vlinstruct import errors

ROOT = Path(__file__).parent.parent
README = (ROOT / "vlinstruct" / "cli" / "README.md").read_text(encoding="utf-8")
CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_exit_code_is_documented(kind: type[errors.VlinstructError]) -> None:
    documented = set(map(int, re.findall(r"^\| (\d+) \|", README, re.MULTILINE)))
    assert kind.exit_code in documented


def test_exit_codes_are_those_of_the_design() -> None:
    codes = {kind.__name__: kind.exit_code for kind in CLASSES}
    assert codes == {
        "VlinstructError": 1,
        "UsageError": 2,
        "BatchError": 3,
        "InputError": 4,
        "ImageError": 4,
        "ClipError": 4,
        "SoundError": 4,
        "TextError": 4,
        "DataError": 4,
        "ScoreError": 4,
        "CheckpointError": 5,
        "ResourceError": 6,
        "DivergedError": 7,
        "OutputInUseError": 8,
        "NetworkError": 9,
    }


def test_an_error_carries_its_own_code_or_its_classs() -> None:
    assert errors.ImageError("no").code == "bad_image"
    assert errors.ImageError("no", code="image_truncated").code == "image_truncated"


def test_an_error_says_problem_and_advice_apart_and_together() -> None:
    error = errors.DataError.at("cannot read file", "a.json", "it is empty", "Copy it again", code="data_empty")
    assert (error.problem, error.advice) == ("cannot read file (a.json): it is empty", "Copy it again")
    assert str(error) == error.message == "cannot read file (a.json): it is empty. Copy it again"
    assert errors.InputError("no such thing.").advice == ""


def test_a_copy_of_an_error_says_the_same() -> None:
    error = copy.copy(errors.ImageError("it is damaged", advice="Copy it.", code="image_damaged"))
    assert (error.message, error.advice, error.code) == ("it is damaged. Copy it.", "Copy it.", "image_damaged")
