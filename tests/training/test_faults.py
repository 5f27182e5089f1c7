"""Training's faults: what fails is named, nothing that was saved is lost, and the rest goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from vlinstruct.backends.instructblip.adapter import load_adapter, save_adapter
from vlinstruct.errors import (
    CheckpointError,
    DataError,
    DivergedError,
    ImageError,
    InputError,
    ResourceError,
    UsageError,
)
from vlinstruct.mini.example_data import write_example_data
from vlinstruct.training.data.conversations import read_conversations
from vlinstruct.training.devices import Devices
from vlinstruct.training.examples import answer_nll, validation_loss
from vlinstruct.training.job import Progress
from vlinstruct.training.schedule import learning_rate_at
from vlinstruct.training.train import train as run_training

from .training_set import SETTINGS, job, model, result, samples

Nll = Callable[..., torch.Tensor]
ACCUMULATED = replace(SETTINGS, per_device_train_batch_size=2, gradient_accumulation_steps=1)


@pytest.fixture
def backbone(tiny_folders: dict[str, Path]) -> Path:
    return tiny_folders["t5"]


def train(backbone: Path, folder: Path, settings: Any = SETTINGS, **more: Any) -> list[str]:
    """Trains on the seven samples beside the folder; returns the notices."""
    notices: list[str] = []
    stop_after = more.pop("stop_after", None)
    steps: list[Any] = []

    def should_stop() -> bool:
        return stop_after is not None and (folder / "log.jsonl").exists() and len(steps) >= stop_after - 1

    progress = Progress(on_step=steps.append, notify=notices.append, should_stop=should_stop)
    devices = more.pop("devices", None) or Devices(cpu=True)
    learned = more.pop("samples", None) or samples(folder.parent / "data")
    run_training(job(model(backbone), learned, folder, settings, **more), devices=devices, progress=progress)
    return notices


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def poison(monkeypatch: pytest.MonkeyPatch, change: Callable[[Nll, tuple[Any, ...]], torch.Tensor]) -> None:
    """Puts a fault into the loss."""
    monkeypatch.setattr("vlinstruct.training.examples.answer_nll", lambda *given: change(answer_nll, given))


def is_longest(given: tuple[Any, ...]) -> bool:
    return any(len(ids) == 9 for ids in given[3])  # seven letters, a space and the end: sample s6


def nan_for_the_longest(nll: Nll, given: tuple[Any, ...]) -> torch.Tensor:
    return nll(*given) * (float("nan") if is_longest(given) else 1.0)


def test_a_poisoned_sample_is_named_and_nothing_is_learned_from_it(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, nan_for_the_longest)
    with pytest.raises(DivergedError, match=r"the loss of update \d+ is not finite \(samples s6\)"):
        train(backbone, tmp_path / "a")
    done = len(records(tmp_path / "a"))
    saved = [int(path.name.removeprefix("step-")) for path in (tmp_path / "a" / "checkpoints").glob("step-*")]
    assert all(step <= done for step in saved)


def test_updates_may_be_left_out_but_not_more_than_was_said(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, nan_for_the_longest)
    notices = train(backbone, tmp_path / "a", replace(SETTINGS, skip_nonfinite=3))
    left_out = [record["step"] for record in records(tmp_path / "a") if record["loss"] is None]
    assert len(left_out) == 3  # one in each epoch
    assert [f"update {step} " in notice for step, notice in zip(left_out, notices, strict=True)] == [True] * 3
    with pytest.raises(DivergedError, match=f"update {left_out[2]} "):
        train(backbone, tmp_path / "b", replace(SETTINGS, skip_nonfinite=2))


def test_left_out_updates_are_counted_over_a_resume(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, nan_for_the_longest)
    settings = replace(SETTINGS, skip_nonfinite=3)
    train(backbone, tmp_path / "whole", settings)
    for stop_after in (3, 7):
        train(backbone, tmp_path / "a", settings, resume=True, stop_after=stop_after)
    train(backbone, tmp_path / "a", settings, resume=True)
    assert result(tmp_path / "a") == result(tmp_path / "whole")


def test_an_endless_gradient_stops_before_the_update(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steep(nll: Nll, given: tuple[Any, ...]) -> torch.Tensor:
        value = nll(*given)
        value.register_hook(lambda gradient: gradient * float("inf"))
        return value

    poison(monkeypatch, steep)
    with pytest.raises(DivergedError, match="the gradient of update 1 is not finite"):
        train(backbone, tmp_path / "a")


def test_an_empty_answer_is_refused_before_the_first_update(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"image": "0.png", "instruction": "what?", "answer": ""}\n')
    with pytest.raises(InputError, match="line 1"):
        read_conversations(path, image_root=None)


OUT_OF_MEMORY = [
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory."),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=range(len(OUT_OF_MEMORY)))
def test_out_of_memory_says_what_would_help(
    error: Exception, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(nll: Nll, given: tuple[Any, ...]) -> torch.Tensor:
        raise error

    poison(monkeypatch, full)
    with pytest.raises(ResourceError, match=r"in update 1 with 2 samples at once.*--auto-find-batch-size"):
        train(backbone, tmp_path / "a", ACCUMULATED)


def test_half_as_many_at_once_learn_the_same(backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From where memory ended on, it is the training with half as many samples at once, also after a resume."""
    train(backbone, tmp_path / "one", SETTINGS)

    def small(nll: Nll, given: tuple[Any, ...]) -> torch.Tensor:
        if len(given[3]) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return nll(*given)

    poison(monkeypatch, small)
    settings = replace(ACCUMULATED, auto_find_batch_size=True)
    (notice,) = train(backbone, tmp_path / "two", settings, stop_after=5)
    assert "from here on 1" in notice
    monkeypatch.undo()
    train(backbone, tmp_path / "two", settings, resume=True)
    ours, theirs = result(tmp_path / "two"), result(tmp_path / "one")
    assert ours["alignment.safetensors"] == theirs["alignment.safetensors"]
    assert [one["loss"] for one in records(tmp_path / "two")] == [one["loss"] for one in records(tmp_path / "one")]


def test_the_longest_sample_is_named_when_memory_ends(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_for_the_longest(nll: Nll, given: tuple[Any, ...]) -> torch.Tensor:
        if is_longest(given):
            raise RuntimeError("CUDA out of memory.")
        return nll(*given)

    poison(monkeypatch, full_for_the_longest)
    with pytest.raises(ResourceError, match="the longest is s6 with"):
        train(backbone, tmp_path / "a", replace(SETTINGS, auto_find_batch_size=True))


def test_a_picture_that_cannot_be_read_ahead_is_named(backbone: Path, tmp_path: Path) -> None:
    learned = samples(tmp_path / "data")
    (tmp_path / "data" / "3.png").unlink()
    with pytest.raises(ImageError, match=r"3\.png"):
        train(backbone, tmp_path / "a", samples=learned)
    samples(tmp_path / "data")  # draws it again
    train(backbone, tmp_path / "a", samples=learned)
    train(backbone, tmp_path / "b", samples=learned)
    assert result(tmp_path / "a") == result(tmp_path / "b")


def test_another_torch_is_said(backbone: Path, tmp_path: Path) -> None:
    train(backbone, tmp_path / "a", stop_after=2)
    (checkpoint,) = (tmp_path / "a" / "checkpoints").glob("step-*")
    said = rewrite_facts(checkpoint, torch="2.9.0")
    assert said["facts"]["torch"] == "2.9.0"
    (notice,) = train(backbone, tmp_path / "a", resume=True)
    assert "it began with torch 2.9.0" in notice


def test_another_device_is_said_and_another_type_or_other_weights_are_refused_by_name(
    backbone: Path, tmp_path: Path
) -> None:
    train(backbone, tmp_path / "a", stop_after=2)
    (checkpoint,) = (tmp_path / "a" / "checkpoints").glob("step-*")
    for facts, words in (
        ({"dtype": "bfloat16"}, "dtype was bfloat16, is float32"),
        ({"weights": "others", "data": "0"}, "the model had other weights"),
        ({"weights": "w", "data": "0"}, "data was changed since then"),
    ):
        rewrite_facts(checkpoint, **{"dtype": "float32", **facts})
        with pytest.raises(InputError, match=words) as caught:
            train(backbone, tmp_path / "a", resume=True)
        assert caught.value.message.count(" was ") <= 1, "the data are not blamed for what the model is"
    train(backbone, tmp_path / "b", stop_after=2)
    (checkpoint,) = (tmp_path / "b" / "checkpoints").glob("step-*")
    rewrite_facts(checkpoint, device="cuda")
    (notice,) = train(backbone, tmp_path / "b", resume=True)
    assert "it began on cuda, this is cpu" in notice


def test_a_checkpoint_that_does_not_say_type_weights_and_device_is_gone_on_with(backbone: Path, tmp_path: Path) -> None:
    train(backbone, tmp_path, stop_after=2)
    (checkpoint,) = (tmp_path / "checkpoints").glob("step-*")
    facts = json.loads((checkpoint / "state.json").read_text())["facts"]
    old = {name: value for name, value in facts.items() if name not in ("dtype", "weights", "device")}
    rewrite_state(checkpoint, facts=old)
    assert train(backbone, tmp_path, resume=True) == []


def rewrite_facts(checkpoint: Path, **facts: Any) -> dict[str, Any]:
    """Changes facts of a checkpoint, checksum included."""
    state = json.loads((checkpoint / "state.json").read_text())
    return rewrite_state(checkpoint, facts=state["facts"] | facts)


def rewrite_state(checkpoint: Path, **values: Any) -> dict[str, Any]:
    """Changes what a checkpoint remembers, checksum included."""
    state = json.loads((checkpoint / "state.json").read_text()) | values
    (checkpoint / "state.json").write_text(json.dumps(state))
    sums = json.loads((checkpoint / "manifest.json").read_text())
    sums["state.json"] = hashlib.sha256((checkpoint / "state.json").read_bytes()).hexdigest()
    (checkpoint / "manifest.json").write_text(json.dumps(sums))
    return dict(state)


def test_no_clock_decides_which_checkpoint_is_the_newest(backbone: Path, tmp_path: Path) -> None:
    train(backbone, tmp_path / "whole")
    train(backbone, tmp_path / "a", stop_after=7)
    for age, checkpoint in enumerate(sorted((tmp_path / "a" / "checkpoints").glob("step-*"))):
        for path in (*checkpoint.iterdir(), checkpoint):
            os.utime(path, (10**9 - 10**6 * age, 10**9 - 10**6 * age))
    train(backbone, tmp_path / "a", resume=True)
    assert result(tmp_path / "a") == result(tmp_path / "whole")


def test_a_validation_that_fails_costs_no_update(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validation = samples(tmp_path / "data")[:3]
    train(backbone, tmp_path / "whole", validation=validation)

    calls: list[object] = []

    def fails(*given: Any, **more: Any) -> float | None:
        calls.append(given)
        if len(calls) > 1:  # the first is before the first update
            raise RuntimeError("something else")
        return validation_loss(*given, **more)

    monkeypatch.setattr("vlinstruct.training.loop.validation_loss", fails)
    with pytest.raises(RuntimeError, match="something else"):
        train(backbone, tmp_path / "a", validation=validation)
    assert (tmp_path / "a" / "checkpoints" / "step-00000005").exists()
    monkeypatch.undo()
    train(backbone, tmp_path / "a", validation=validation, resume=True)
    assert result(tmp_path / "a") == result(tmp_path / "whole")


def test_a_tracker_that_fails_does_not_stop_the_training(backbone: Path, tmp_path: Path) -> None:
    devices = Devices(cpu=True, report_to="tensorboard", folder=tmp_path / "curves")
    calls = []

    def fails(values: object, step: int) -> None:
        calls.append(step)
        raise ConnectionError("nobody there")

    devices.accelerator.log = fails
    (notice,) = train(backbone, tmp_path / "a", devices=devices)
    assert "tensorboard failed (ConnectionError)" in notice
    assert calls == [1]
    assert (tmp_path / "a" / "alignment.safetensors").exists()


def test_the_tracker_holds_every_update_and_validation(backbone: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    devices = Devices(cpu=True, report_to="tensorboard", folder=tmp_path / "a")
    train(backbone, tmp_path / "a", devices=devices, validation=samples(tmp_path / "data")[:3])
    devices.end()
    events = EventAccumulator(str(tmp_path / "a" / "tensorboard")).Reload()
    losses = {event.step: event.value for event in events.Scalars("train/loss")}
    logged = {one["step"]: one["loss"] for one in records(tmp_path / "a") if "loss" in one}
    assert losses == pytest.approx(logged, rel=1e-6)
    assert [event.step for event in events.Scalars("eval/loss")] == [0, 5, 10, 12]


def test_a_lock_of_a_killed_run_is_free(backbone: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    held = "import fcntl, sys, time; f = open(sys.argv[1], 'ab'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True)"
    held += "; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", held, str(tmp_path / "a" / ".lock")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    train(backbone, tmp_path / "a")
    assert (tmp_path / "a" / "alignment.safetensors").exists()


def test_an_adapter_can_be_read_while_a_training_replaces_it(backbone: Path, tmp_path: Path) -> None:
    first, second, read = model(backbone).network, model(backbone).network, model(backbone).network
    second.language_projection.weight.data += 1
    save_adapter(tmp_path, first)
    is_done = threading.Event()

    def write() -> None:
        while not is_done.is_set():
            for written in (second, first):
                save_adapter(tmp_path, written)
                time.sleep(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(100):
            load_adapter(tmp_path, read)
            found = read.language_projection.weight
            assert any(torch.equal(found, one.language_projection.weight) for one in (first, second))
    finally:
        is_done.set()
        writer.join()


def test_a_deleted_output_stops_the_training_at_the_next_save(backbone: Path, tmp_path: Path) -> None:
    learned = samples(tmp_path / "data")
    progress = Progress(on_step=lambda record: shutil.rmtree(tmp_path / "a", ignore_errors=True))
    with pytest.raises(ResourceError, match="cannot save checkpoint"):
        run_training(
            job(model(backbone), learned, tmp_path / "a", SETTINGS), devices=Devices(cpu=True), progress=progress
        )
    assert not (tmp_path / "a").exists()


def test_a_checkpoint_that_the_output_does_not_take_goes_elsewhere_and_can_be_gone_on_with(
    backbone: Path, tmp_path: Path
) -> None:
    learned, first, second = samples(tmp_path / "data"), tmp_path / "a", tmp_path / "elsewhere" / "b"
    train(backbone, tmp_path / "whole", samples=learned)
    progress = Progress(on_step=lambda record: shutil.rmtree(first, ignore_errors=True))
    asked = job(model(backbone), learned, first, SETTINGS, save_to=second)
    with pytest.raises(ResourceError, match=r"cannot save checkpoint .* Update 3 is saved in .*elsewhere/b: --resume"):
        run_training(asked, devices=Devices(cpu=True), progress=progress)
    train(backbone, second, samples=learned, resume=True)
    adapters = [(folder / "alignment.safetensors").read_bytes() for folder in (second, tmp_path / "whole")]
    assert adapters[0] == adapters[1]


def test_the_split_of_a_batch_may_change_and_is_said(backbone: Path, tmp_path: Path) -> None:
    train(backbone, tmp_path / "whole")
    train(backbone, tmp_path / "a", stop_after=4)
    (notice,) = train(backbone, tmp_path / "a", ACCUMULATED, resume=True)
    assert "split otherwise" in notice
    ours, theirs = ([one["loss"] for one in records(tmp_path / name)] for name in ("a", "whole"))
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_another_batch_is_refused(backbone: Path, tmp_path: Path) -> None:
    train(backbone, tmp_path / "a", stop_after=4)
    with pytest.raises(InputError, match="batch_size was 2, is 4"):
        train(backbone, tmp_path / "a", replace(SETTINGS, gradient_accumulation_steps=4), resume=True)


def test_a_setting_may_be_overridden_by_name_and_is_said(backbone: Path, tmp_path: Path) -> None:
    train(backbone, tmp_path / "a", stop_after=4)
    other = replace(SETTINGS, learning_rate=2e-2, weight_decay=0.1)
    with pytest.raises(InputError, match=r"learning_rate was 0\.01, is 0\.02\. .*--override NAME"):
        train(backbone, tmp_path / "a", other, resume=True, override=["weight_decay"])
    notices = train(backbone, tmp_path / "a", other, resume=True, override=["weight_decay", "learning_rate"])
    assert "learning_rate was 0.01, is 0.02, as --override asks." in notices
    rates = [record["learning_rate"] for record in records(tmp_path / "a")]
    assert rates[2] == SETTINGS.learning_rate
    assert rates[4:] == [2 * learning_rate_at(step, 12, SETTINGS) for step in range(4, 12)]


@pytest.mark.parametrize("name", ["seed", "ema", "batch_size", "data", "nonsense"])
def test_what_decides_the_order_or_what_learns_cannot_be_overridden(name: str, backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"cannot change {name}: it can change learning_rate, "):
        train(backbone, tmp_path / "a", resume=True, override=[name])


def test_two_writers_of_one_set_leave_the_set_of_one(tmp_path: Path) -> None:
    write_example_data(tmp_path / "alone", "train", pictures=4, seed=0)
    write = partial(write_example_data, tmp_path / "both", "train", pictures=4, seed=0)
    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    alone, both = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("alone", "both"))
    assert both == alone


@pytest.mark.parametrize("line", ["loss: 3", "[1]", '{"loss": 1.5}', '{"step": true}', '{"step": 1, "loss": "low"}'])
def test_a_log_that_was_edited_is_named_with_its_line(line: str, backbone: Path, tmp_path: Path) -> None:
    train(backbone, tmp_path / "a", stop_after=3)
    log = tmp_path / "a" / "log.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([lines[0], line, *lines[1:], ""]))
    with pytest.raises(DataError, match=r"log\.jsonl line 2\): "):
        train(backbone, tmp_path / "a", resume=True)
    assert log.read_text().splitlines()[1] == line  # nothing of it is lost


@pytest.mark.parametrize(
    "change",
    [{"step": "3"}, {"step": None}, {"facts": []}, {"standing": {}}, {"standing": {"rows": 1}}, {"standing": None}],
)
def test_a_checkpoint_of_another_kind_is_passed_over_and_said(
    change: dict[str, Any], backbone: Path, tmp_path: Path
) -> None:
    train(backbone, tmp_path / "a", stop_after=2)
    (checkpoint,) = (tmp_path / "a" / "checkpoints").glob("step-*")
    rewrite_state(checkpoint, **change)
    with pytest.raises(CheckpointError, match=r"all checkpoints in .* are damaged"):
        train(backbone, tmp_path / "a", resume=True)


def test_what_a_killed_run_was_about_to_write_is_gone_at_the_next_start(backbone: Path, tmp_path: Path) -> None:
    train(backbone, tmp_path / "a", stop_after=3)
    for place in ("checkpoints/.tmp-step-00000004", "checkpoints/.tmp-old-step-00000001"):
        (tmp_path / "a" / place).mkdir()
        (tmp_path / "a" / place / "learning.safetensors").write_bytes(b"half")
    for place in (".tmp-1alignment.safetensors", "features/.tmp-2features.json", "best/.tmp-3README.md"):
        (tmp_path / "a" / place).parent.mkdir(exist_ok=True)
        (tmp_path / "a" / place).write_bytes(b"half")
    train(backbone, tmp_path / "a", resume=True)
    assert list((tmp_path / "a").rglob(".tmp*")) == []
    train(backbone, tmp_path / "whole")
    assert result(tmp_path / "a") == result(tmp_path / "whole")
