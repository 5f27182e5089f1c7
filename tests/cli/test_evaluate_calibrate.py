"""`vlinstruct evaluate --calibrate`: thresholds from pictures as `ask` reads them, and options that can be typed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import vli

from vlinstruct.backend import Row, Written
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Failed

from .conftest import Pictures

COMMAND = ("evaluate", "--calibrate", "--device", "cpu")


@pytest.fixture
def folder(pictures: Pictures) -> Path:
    return pictures(6)[0].parent


@pytest.fixture
def answers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the model answer every prompt with a number of its own; likelihoods are the tiny model's."""

    def write(self: object, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        return [Written(text=f"{zlib.crc32(row.prompt.encode())}", token_nll=(0.5,)) for row in rows]

    monkeypatch.setattr(InstructBlipBackend, "write", write)


@pytest.mark.usefixtures("answers_at_once")
def test_what_is_printed_can_be_typed(folder: Path, picture: Path) -> None:
    result = vli(*COMMAND, folder)
    assert result.stderr == ""
    found, gate, options = result.text.splitlines()
    assert "foreign instructions pass, on 6 pictures" in found
    assert "--data FILE" in gate
    typed = options.removeprefix("options      ").split()
    assert vli("ask", picture, "what?", "-O", *typed).exit_code == 0
    (record,) = vli(*COMMAND, folder, "--json").records
    assert (record["schema"], record["id"], record["status"]) == ("vlinstruct.calibration/1", "calibration", "ok")
    assert (record["pictures"], typed) == (6, ["--max-cross-nll", f"{record['max_cross_nll']:g}"])


@pytest.mark.usefixtures("answers_at_once")
def test_a_folder_a_glob_and_files_are_the_same_pictures(folder: Path) -> None:
    first = vli(*COMMAND, folder).text
    assert vli(*COMMAND, folder / "*.png").text == first
    assert vli(*COMMAND, *sorted(folder.iterdir())).text == first


def labelled(folder: Path, name: str, count: int = 30) -> Path:
    paths = sorted(folder.iterdir())
    path = folder.parent / f"{name}.jsonl"
    lines = [
        {name: f"{folder.name}/{paths[place % 6].name}", "question": "q?", "answer": "a"} for place in range(count)
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


@pytest.mark.usefixtures("answers_at_once")
def test_labelled_items_find_the_gate(folder: Path) -> None:
    (record,) = vli(*COMMAND, folder, "--data", labelled(folder, "image"), "--json").records
    assert (record["labelled"], record["sure_above"]) == (30, 0)  # all answers are wrong: nothing is to be gained
    renamed = vli(*COMMAND, folder, "--data", labelled(folder, "photo"), "--columns", "image=photo")
    assert renamed.text.endswith("--sure-above 0\n")


@pytest.mark.usefixtures("answers_at_once")
def test_what_cannot_be_read_does_not_count_and_is_named(folder: Path) -> None:
    good = vli(*COMMAND, folder).text
    data = labelled(folder, "image")
    (folder / "z.png").write_bytes(b"<html>404</html>")
    result = vli(*COMMAND, folder)
    assert "1 of 7 pictures and items cannot be used" in result.refusal(3, stdout=good.encode())
    data.write_text(data.read_text() + '{"image": "none.png"}\n')
    result = vli(*COMMAND, folder, "--data", data, "--json")
    (record,) = result.records
    assert [entry["id"] for entry in record["failed"]] == [str(folder / "z.png"), "line-31"]
    assert "2 of 38 pictures and items" in result.refusal(3, stdout=result.stdout)


@pytest.mark.usefixtures("no_model")
def test_too_little_is_refused_in_one_line(folder: Path, pictures: Pictures) -> None:
    few = vli(*COMMAND, *pictures(3, "few"))
    assert few.refusal(4) == (
        "error: 3 pictures are named, at least 4 are needed. Give more pictures, 30 and more say enough."
    )
    data = labelled(folder, "image", 29)
    assert "29 labelled items can be used, at least 30" in vli(*COMMAND, folder, "--data", data).refusal(4)
    assert "Type: vlinstruct evaluate --calibrate IMAGE..." in vli(*COMMAND).refusal(2)
    assert "no image found" in vli(*COMMAND, "none*.png").refusal(4)


IDLE = {
    "--ablation": ("--ablation",),
    "--limit": ("--limit", 5),
    "--split": ("--split", "dev"),
    "--list": ("--list",),
    "--num-beams": ("--num-beams", 5),
    "--max-cross-nll": ("--max-cross-nll", 2),
    "--output": ("-o", "folder"),
    "a second --adapter": ("--adapter", "a", "--adapter", "b"),
}


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(("name", "options"), IDLE.items(), ids=IDLE)
def test_options_of_benchmarks_are_refused(folder: Path, name: str, options: tuple[object, ...]) -> None:
    assert f"{name} changes nothing with --calibrate" in vli(*COMMAND, folder, *options).refusal(2)


@pytest.mark.usefixtures("no_model")
def test_options_of_the_calibration_are_refused_without_it() -> None:
    assert "--columns changes nothing without --calibrate" in vli("evaluate", "mini", "--columns", "a=b").refusal(2)


def test_thresholds_decide_about_the_table_of_benchmarks_and_answer_nothing_anew(tmp_path: Path) -> None:
    command = ("evaluate", "mini/gqa", "--backbone", "mini", "--device", "cpu", "--limit", 2, "-o", tmp_path)
    assert "sure above" not in vli(*command).text
    records = (tmp_path / "records.jsonl").read_bytes()
    # Nothing is as certain as 1, and everything more than 0.
    for sure_above, is_left_alone in ((1, False), (0, True)):
        result = vli(*command, "--sure-above", sure_above)
        assert "6 done before" in result.stderr
        assert f"sure above: {sure_above:.1f}" in result.text
        assert ("so they were left alone" in (tmp_path / "report.html").read_text()) is is_left_alone
        assert json.loads((tmp_path / "results.json").read_text())["sure_above"] == sure_above
    assert (tmp_path / "records.jsonl").read_bytes() == records
    assert "sure_above must be 0 to 1" in vli(*command, "--sure-above", 2).refusal(2)
