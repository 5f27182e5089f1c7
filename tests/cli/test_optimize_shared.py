"""`vlinstruct optimize --shared`: one record for a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import vli
from PIL import Image

import vlinstruct

INSTRUCTION = "name 2 things"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "pictures"
    path.mkdir()
    for index, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (40, 30), colour).save(path / f"{index}.png")
    return path


def test_the_record_is_what_python_returns(folder: Path, tiny_folders: dict[str, Path]) -> None:
    model = vlinstruct.load(str(tiny_folders["t5"]), device="cpu")
    ours = model.optimize_shared(INSTRUCTION, sorted(folder.iterdir()), batch_size=2)
    (record,) = vli("optimize", INSTRUCTION, folder, "--shared", "--json").records
    head = (record["schema"], record["id"], record["status"], record["images"], record["backbone"])
    assert head == ("vlinstruct.optimize_shared/1", "shared", "ok", 3, str(tiny_folders["t5"]))
    for role in ("initial", "rewritten", "optimized"):
        scored = getattr(ours, role)
        assert record[role] == {"text": scored.text, "ias": pytest.approx(scored.ias, abs=2e-5)}
    assert (record["chosen"], record["reason"]) == (ours.chosen, ours.reason)


def test_it_is_printed_for_people(folder: Path) -> None:
    text = vli("optimize", INSTRUCTION, folder, "--shared").text
    assert text.splitlines()[-1] == "pictures   3, every IAS is the mean over them"


def test_a_bad_picture_does_not_count_and_is_named(folder: Path) -> None:
    good = vli("optimize", INSTRUCTION, folder, "--shared", "--json").records
    (folder / "1a.png").write_bytes(b"<html>404</html>")
    outcome = vli("optimize", INSTRUCTION, folder, "--shared", "--json")
    assert outcome.exit_code == 3
    assert "1 of 4 pictures cannot be read and do not count" in outcome.stderr
    (record,) = outcome.records
    (failed,) = record.pop("failed")
    assert failed["image"] == str(folder / "1a.png")
    assert [record] == good


def test_nothing_but_bad_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"<html>404</html>")
    assert "a.png" in vli("optimize", INSTRUCTION, tmp_path, "--shared").refusal(4)


@pytest.mark.parametrize("wrong", [["--answer"], ["--num-beams", "3"], ["--output", "a"], ["--max-failures", "1"]])
def test_options_that_would_do_nothing_are_refused(wrong: list[str], folder: Path) -> None:
    assert "--shared" in vli("optimize", INSTRUCTION, folder, "--shared", *wrong).refusal(2)


def test_it_leaves_nothing_to_resume_and_the_same_command_gives_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = vli("optimize", INSTRUCTION, folder, "--shared", "--json").stdout
    before = sorted(tmp_path.rglob("*"))

    def stopped(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("vlinstruct.model.Model.optimize_chunks", stopped)
        vli("optimize", INSTRUCTION, folder, "--shared", "--json").refusal(6)
    assert sorted(tmp_path.rglob("*")) == before
    assert vli("optimize", INSTRUCTION, folder, "--shared", "--json").stdout == expected
