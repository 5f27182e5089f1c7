"""A picture that cannot be read is left out where that was allowed; the rest is learned in its order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlinstruct.errors import ImageError
from vlinstruct.training.devices import Devices
from vlinstruct.training.job import Progress
from vlinstruct.training.train import train as run_training

from .training_set import SETTINGS, job, model, result, samples

Train = Callable[..., list[str]]
NUM_LEFT_OUT = 2  # samples of picture 1


@pytest.fixture
def train(tiny_folders: dict[str, Path], tmp_path: Path) -> Train:
    """Trains on the tiny set, of which picture 1 is spoilt first, and returns the notices."""

    def run(
        name: str,
        *,
        skip_images: int,
        spoil: Callable[[Path], object] = Path.unlink,
        stop_after: int = 99,
        resume: bool = False,
    ) -> list[str]:
        learned = samples(tmp_path / "data")
        spoil(tmp_path / "data" / "1.png")
        notices: list[str] = []
        steps: list[Mapping[str, Any]] = []
        progress = Progress(
            notify=notices.append, on_step=steps.append, should_stop=lambda: len(steps) >= stop_after - 1 > 0
        )
        settings = replace(SETTINGS, skip_images=skip_images)
        asked = job(model(tiny_folders["t5"]), learned, tmp_path / name, settings, resume=resume)
        run_training(asked, devices=Devices(cpu=True), progress=progress)
        return notices

    return run


def updates(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_jpeg_that_was_cut_off_is_learned_from_where_that_is_allowed(
    tiny_folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learned = samples(tmp_path / "data")
    with Image.open(learned[0].image) as image:
        image.convert("RGB").resize((64, 64)).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[:-2])

    def run(name: str, picture: str, **settings: Any) -> dict[str, bytes]:
        asked = [replace(sample, image=tmp_path / picture) for sample in learned]
        settings = {"max_steps": 2, **settings}
        task = job(model(tiny_folders["t5"]), asked, tmp_path / name, replace(SETTINGS, **settings))
        run_training(task, devices=Devices(cpu=True))
        return (tmp_path / name / "log.jsonl").read_bytes()

    with pytest.raises(ImageError, match="--allow-truncated"):
        run("a", "cut.jpg")
    assert run("b", "cut.jpg", allow_truncated=True) == run("c", "whole.jpg")
    assert "cut.jpg: it was cut off" in caplog.text


def test_a_missing_picture_is_left_out_and_named(train: Train, tmp_path: Path) -> None:
    (notice,) = train("a", skip_images=1)
    assert notice.startswith("left out, 1 of at most 1: ")
    assert "1.png" in notice
    in_an_epoch = [record for record in updates(tmp_path / "a") if record["epoch"] == 0]
    assert sum(record["samples"] for record in in_an_epoch) == 5


@pytest.mark.parametrize("content", [b"", b"no picture at all"])
def test_so_is_a_damaged_one(content: bytes, train: Train) -> None:
    (notice,) = train("a", skip_images=3, spoil=lambda path: path.write_bytes(content))
    assert "1.png" in notice


def test_without_leave_the_training_ends_with_its_name(train: Train) -> None:
    with pytest.raises(ImageError, match=r"1\.png"):
        train("a", skip_images=0)


def test_the_order_of_the_rest_is_as_it_was(train: Train, tmp_path: Path) -> None:
    train("whole", skip_images=0, spoil=lambda path: None)
    train("a", skip_images=1)
    whole, without = updates(tmp_path / "whole"), updates(tmp_path / "a")
    assert [record["step"] for record in whole] == [record["step"] for record in without]
    fewer = [one["samples"] - rest["samples"] for one, rest in zip(whole, without, strict=True)]
    assert sum(fewer[:4]) == NUM_LEFT_OUT
    first = fewer.index(next(count for count in fewer if count))
    assert [record["loss"] for record in without[:first]] == [record["loss"] for record in whole[:first]]


@pytest.mark.parametrize("stop_after", [2, 6])
def test_a_resumed_training_ends_with_the_same_bits(stop_after: int, train: Train, tmp_path: Path) -> None:
    train("whole", skip_images=1)
    train("a", skip_images=1, stop_after=stop_after)
    train("a", skip_images=1, resume=True)
    assert result(tmp_path / "a") == result(tmp_path / "whole")


def test_an_update_without_a_picture_changes_nothing(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    learned = samples(tmp_path / "data")
    for number in (1, 2, 3, 4):
        (tmp_path / "data" / f"{number}.png").unlink()
    settings = replace(SETTINGS, skip_images=4, gradient_accumulation_steps=1, max_steps=7)
    run_training(job(model(tiny_folders["t5"]), learned, tmp_path / "a", settings), devices=Devices(cpu=True))
    counts = [record["samples"] for record in updates(tmp_path / "a")]
    assert sorted(counts) == [0] * 5 + [1] * 2
    assert all((record["loss"] is None) == (record["samples"] == 0) for record in updates(tmp_path / "a"))


def test_a_set_of_which_nothing_is_left_is_refused(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    learned = samples(tmp_path / "data")
    for number in range(5):
        (tmp_path / "data" / f"{number}.png").write_bytes(b"")
    asked = job(model(tiny_folders["t5"]), learned, tmp_path / "a", replace(SETTINGS, skip_images=9))
    with pytest.raises(ImageError, match="but not all"):
        run_training(asked, devices=Devices(cpu=True))
