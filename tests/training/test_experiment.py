"""A whole experiment in one file: several sets with weights, what is held out, when it ends; each to the same bits."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from vlinstruct.errors import DataError, DivergedError, InputError, ResourceError, UsageError
from vlinstruct.settings import Tracker
from vlinstruct.training.devices import Devices
from vlinstruct.training.experiment import DataSource, read_experiment
from vlinstruct.training.finetune import finetune
from vlinstruct.training.job import Progress
from vlinstruct.training.schedule import Mixture
from vlinstruct.training.sets import held_out
from vlinstruct.training.train import train as run_training

from .training_set import SETTINGS, job, model, result, samples, write_data

QUICK: dict[str, Any] = {
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "max_steps": 6,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "device": "cpu",
}


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("weights", [(1.0, 1.0), (2.0, 0.5), (0.3, 1.7), (0.01, 3.0)])
def test_every_sample_of_a_set_is_learned_as_often_as_its_weight_says(weights: tuple[float, float]) -> None:
    mixture = Mixture(sizes=(7, 10), weights=weights)
    num_epochs = 70  # a multiple of both sizes: so many epochs are whole passes over both sets
    epochs = [mixture.indices(seed=3, epoch=epoch) for epoch in range(num_epochs)]
    assert {len(epoch) for epoch in epochs} == {sum(mixture.counts)}
    learned = Counter(index for epoch in epochs for index in epoch)
    first, second = mixture.counts
    assert learned == {**dict.fromkeys(range(7), 10 * first), **dict.fromkeys(range(7, 17), 7 * second)}
    assert epochs == [mixture.indices(seed=3, epoch=epoch) for epoch in range(num_epochs)]
    if weights == (1.0, 1.0):
        assert epochs == [list(range(17))] * num_epochs
    else:
        assert epochs != [mixture.indices(seed=4, epoch=epoch) for epoch in range(num_epochs)]


@pytest.mark.parametrize("size", [1, 2, 0.3, 0.7])
def test_no_picture_is_on_both_sides_whatever_it_is_called(size: float, tmp_path: Path) -> None:
    write_data(tmp_path)
    shutil.copy(tmp_path / "3.png", tmp_path / "copy.png")
    with (tmp_path / "data.jsonl").open("a") as file:
        file.write('{"image": "copy.png", "instruction": "what?", "answer": "b"}\n')
    given = samples(tmp_path)
    for seed in range(8):  # of some draws the copy is on the picture's side by chance
        is_out = held_out(given, size, seed=seed)
        sides = [
            {sample.image.read_bytes() for sample, out in zip(given, is_out, strict=True) if out is side}  # type: ignore[union-attr]
            for side in (True, False)
        ]
        assert sides[0].isdisjoint(sides[1])
        assert sum(is_out) >= (size if size >= 1 else size * len(given))
        assert is_out == held_out(given, size, seed=seed)


def test_something_is_left_to_learn_or_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--val-size leaves nothing to learn"):
        held_out(samples(tmp_path), 7, seed=0)


def test_the_settings_beside_an_adapter_train_the_same_adapter(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path / "pictures")
    for name in ("one", "two"):
        lines = [
            {"file": f"{number}.png", "q": f"what is {name} {number}?", "answer": name * (number + 1)}
            for number in range(4)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "elsewhere").mkdir()
    mine = {"data": [{"path": "one.jsonl", "weight": 0.5, "image_root": "pictures"}, "two.jsonl"], "val_size": 2}
    mine |= {"image_root": str(tmp_path / "pictures"), "columns": "image=file,question=q", "eval_steps": 2}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**mine, "output": "a", "backbone": str(tiny_folders["t5"])}))
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    outcome = finetune(config="mine.yaml", progress=Progress(notify=told.append), **QUICK)
    assert (outcome.folder, sorted(outcome.validations)) == (Path("a"), [0, 2, 4, 6])
    assert read_experiment("a/settings.yaml")["data"][0].weight == 0.5
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = finetune(config=tmp_path / "a" / "settings.yaml", output="b", device="cpu")
    assert again.losses == outcome.losses
    for name in ("alignment.safetensors", "best/alignment.safetensors", "log.jsonl", "settings.yaml", "curve.svg"):
        assert Path("b", name).read_bytes() == (tmp_path / "a" / name).read_bytes(), name
    other = finetune(config=tmp_path / "a" / "settings.yaml", output="c", device="cpu", seed=1)
    assert other.losses != outcome.losses, "what is given stands above the file"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: [{path: a, weigth: 2}]", "unknown key weigth; did you mean weight? (line 1)"),
        ("data: [{weight: 2}]", "missing: path"),
        ("data: [{path: a, weight: 0}]", "the weight of a must be above 0"),
        ("data: [{path: a, weight: .nan}]", "weight must be a finite number"),
        ("data: 3.5\nval_size: 1.5", "val_size must be a whole number of samples, or a share"),
        ("data: [[a]]", "data must be a text, or a list of mappings of path, weight, image_root, got a list"),
        ("report_to: wands", "report_to must be aim or clearml"),
    ],
)
def test_what_is_wrong_in_an_experiment_is_said_with_its_place(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(DataError) as refused:
        read_experiment(tmp_path / "mine.yaml")
    assert said in refused.value.message
    assert "mine.yaml" in refused.value.message


def trained(
    backbone: Path,
    folder: Path,
    data: Path,
    *,
    stop_after: int | None = None,
    losses: list[float] | None = None,
    **more: Any,
) -> None:
    """Trains a mixture with validations, and stops after so many updates of this call."""
    updates: list[Mapping[str, Any]] = []
    progress = Progress(
        on_step=updates.append, should_stop=lambda: stop_after is not None and len(updates) >= stop_after
    )
    learned = samples(data)
    wanted = job(
        model(backbone),
        [*learned, *learned[:3]],
        folder,
        replace(SETTINGS, eval_steps=2, **more),
        mixture=Mixture(sizes=(7, 3), weights=(0.4, 2.0)),
        validation=learned[3:],
        resume=stop_after is not None or folder.exists(),
    )
    run_training(wanted, devices=Devices(cpu=True), progress=progress)


def test_a_mixture_resumed_after_any_update_ends_with_the_same_bits(
    tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    backbone, data = tiny_folders["t5"], tmp_path / "data"
    trained(backbone, tmp_path / "whole", data)
    for _ in range(4):  # three updates each
        trained(backbone, tmp_path / "a", data, stop_after=2)
    trained(backbone, tmp_path / "a", data)
    assert result(tmp_path / "a") == result(tmp_path / "whole")
    answers = [*samples(data), *samples(data)[:3]]
    lengths = [len(model(backbone).tokenizer.target_ids(sample.answer)) for sample in answers]
    mixture = Mixture(sizes=(7, 3), weights=(0.4, 2.0))
    lines = [line for line in log_of(tmp_path / "whole") if "epoch" in line]
    for epoch in (0, 1):  # those that are whole
        learned = mixture.indices(seed=SETTINGS.seed, epoch=epoch)
        assert len(learned) == 3 + 6, "0.4 x 7 samples of one set, 2 x 3 of the other"
        counted = [line["target_tokens"] for line in lines if line["epoch"] == epoch]
        assert sum(counted) == sum(lengths[index] for index in learned)


def test_early_stopping_ends_when_validations_no_longer_get_better_and_is_resumed_to_the_same_bits(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, data = tiny_folders["t5"], tmp_path / "data"
    # By the update, so that a resumed run sees the same: best after update 2, then two in a row that are not.
    course = {0: 5.0, 2: 3.0, 4: 3.5, 6: 3.0, 8: 1.0, 10: 0.9, 12: 0.8}
    monkeypatch.setattr(
        "vlinstruct.training.loop.Loop._loss_of_validation", lambda self: course[self.step], raising=True
    )
    trained(backbone, tmp_path / "whole", data, early_stopping_patience=2)
    assert [line["step"] for line in log_of(tmp_path / "whole") if "eval_loss" in line] == [0, 2, 4, 6]
    assert (tmp_path / "whole" / "alignment_config.json").exists()
    before = result(tmp_path / "whole")
    trained(backbone, tmp_path / "whole", data, early_stopping_patience=2)  # complete: nothing changes
    assert result(tmp_path / "whole") == before
    for _ in range(3):
        trained(backbone, tmp_path / "a", data, stop_after=1, early_stopping_patience=2)
    trained(backbone, tmp_path / "a", data, early_stopping_patience=2)
    assert result(tmp_path / "a") == before
    trained(backbone, tmp_path / "never", data, early_stopping_patience=3)
    assert log_of(tmp_path / "never")[-1]["step"] == 12


def test_patience_without_validations_is_refused(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs --eval-data or --val-size"):
        finetune(
            write_data(tmp_path),
            backbone=str(tiny_folders["t5"]),
            output=tmp_path / "a",
            early_stopping_patience=1,
            **QUICK,
        )
    with pytest.raises(UsageError, match="contradict"):
        finetune(
            write_data(tmp_path), eval_data=tmp_path / "data.jsonl", val_size=1, output=tmp_path / "a", backbone="mini"
        )
    assert not (tmp_path / "a").exists()


def test_the_first_validation_is_of_the_untrained_model(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    arguments = {**QUICK, "backbone": str(tiny_folders["t5"]), "eval_data": data, "eval_steps": 3}
    first = finetune(data, output=tmp_path / "a", **{**arguments, "learning_rate": 1e-2})
    other = finetune(data, output=tmp_path / "b", **{**arguments, "learning_rate": 1e-3})
    assert first.validations[0] == other.validations[0]
    assert first.validations[3] != other.validations[3]


def test_overwriting_ends_as_if_nothing_had_been_there(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    arguments = {**QUICK, "backbone": str(tiny_folders["t5"]), "output": tmp_path / "a"}
    finetune(data, **{**arguments, "max_steps": 3}, eval_data=data)
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="--overwrite"):
        finetune(data, **arguments)
    with pytest.raises(UsageError, match="contradict"):
        finetune(data, **arguments, overwrite=True, resume=True)
    finetune(data, **arguments, overwrite=True)
    finetune(data, **{**arguments, "output": tmp_path / "fresh"}, overwrite=True)
    assert result(tmp_path / "a") == result(tmp_path / "fresh")
    assert not (tmp_path / "a" / "best").exists(), "of the earlier training"
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"


def test_what_cannot_make_its_first_update_leaves_the_earlier_adapter(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_data(tmp_path / "data")
    arguments = {**QUICK, "backbone": str(tiny_folders["t5"]), "output": tmp_path / "a"}
    finetune(data, **arguments)
    before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    with monkeypatch.context() as patched:
        patched.setattr("vlinstruct.training.loop.Loop._is_finite", _diverged)
        with pytest.raises(DivergedError):
            finetune(data, **arguments, overwrite=True)
    stopped = finetune(data, **arguments, overwrite=True, progress=Progress(should_stop=lambda: True))
    assert stopped.step == 0
    assert {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()} == before


def _diverged(*_: object) -> bool:
    raise DivergedError("the loss is not finite", advice="Check.")


@pytest.mark.parametrize("name", ["README.md", "settings.yaml", "lora"])
def test_what_no_training_wrote_is_not_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=f"its {name} was not written by a training"):
            finetune(output=tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_adapter_without_checkpoints_is_neither_trained_over_nor_resumed(
    tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    data = write_data(tmp_path / "data")
    arguments = {**QUICK, "backbone": str(tiny_folders["t5"]), "output": tmp_path / "a", "max_steps": 1}
    finetune(data, **arguments)
    shutil.rmtree(tmp_path / "a" / "checkpoints")
    for resume in (False, True):
        with pytest.raises(InputError, match="it holds an adapter" if resume else "it holds a run"):
            finetune(data, **arguments, resume=resume)


def test_resume_alone_goes_on_from_anywhere_and_still_refuses_other_data(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data")
    updates: list[object] = []
    arguments = {**QUICK, "backbone": str(tiny_folders["t5"]), "val_size": 0.3, "save_steps": 2}
    stop = Progress(on_step=updates.append, should_stop=lambda: len(updates) == 2)
    assert finetune("data.jsonl", output=tmp_path / "a", progress=stop, **arguments).step == 3
    finetune("data.jsonl", output=tmp_path / "whole", **arguments)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"val_size was 0\.3, is 0\.5"):
        finetune(output="a", resume=True, val_size=0.5, device="cpu")
    assert finetune(output="a", resume=True, device="cpu").is_complete
    assert result(tmp_path / "a") == result(tmp_path / "whole")
    text = (tmp_path / "data" / "data.jsonl").read_text()
    (tmp_path / "data" / "data.jsonl").write_text(text.replace('"aa"', '"ab"'))
    with pytest.raises(InputError, match="data was changed since then"):
        finetune(output="a", resume=True, device="cpu")


@pytest.mark.parametrize("more", [{}, {"per_device_train_batch_size": 1}])
def test_a_resumed_run_keeps_its_batch_however_it_is_split(
    more: dict[str, int], tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    data, updates = write_data(tmp_path / "data"), []
    stop = Progress(on_step=updates.append, should_stop=lambda: len(updates) == 1)
    arguments = {**QUICK, "gradient_accumulation_steps": 2, "max_steps": 3}
    finetune(data, backbone=str(tiny_folders["t5"]), output=tmp_path / "a", progress=stop, **arguments)
    assert finetune(output=tmp_path / "a", resume=True, device="cpu", **more).is_complete
    assert sorted(line["samples"] for line in log_of(tmp_path / "a")) == [3, 4, 4]


def test_a_tracker_is_opened_before_the_work_or_refused(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import tracking
    from accelerate.utils import LoggerType

    logged: list[tuple[dict[str, float], int | None]] = []

    class Fake(tracking.GeneralTracker):  # as W&B's in accelerate: no folder of its own, settings are kept
        name = "wandb"
        requires_logging_directory = False
        main_process_only = True
        is_logged_in = False

        def __init__(self, run_name: str, **settings: Any) -> None:
            super().__init__()
            self.opened = (run_name, settings)

        tracker = None

        def start(self) -> None:
            if not Fake.is_logged_in:
                raise RuntimeError("api_key not configured (no-tty)\nmore")

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            logged.append((values, None))

        def log(self, values: dict[str, float], step: int | None, **_: Any) -> None:
            logged.append((values, step))

    data = write_data(tmp_path / "data")
    arguments = {**QUICK, "backbone": str(tiny_folders["t5"]), "max_steps": 2, "eval_data": data, "report_to": "wandb"}
    with pytest.raises(ResourceError, match=r"--report-to needs wandb, which is not installed: pip install wandb"):
        finetune(data, output=tmp_path / "a", **arguments)
    with pytest.raises(UsageError, match="must be one of aim"):
        finetune(data, output=tmp_path / "a", **{**arguments, "report_to": "wand"})
    monkeypatch.setattr("vlinstruct.training.finetune.find_spec", lambda name: object())
    with pytest.raises(ResourceError, match="another version of wandb"):
        finetune(data, output=tmp_path / "a", **arguments)
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Fake)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [LoggerType("wandb")])
    with pytest.raises(ResourceError, match=r"cannot report to \(wandb\): api_key not configured"):
        finetune(data, output=tmp_path / "a", **arguments)
    assert not (tmp_path / "a").exists()
    Fake.is_logged_in = True
    finetune(data, output=tmp_path / "a", **arguments)
    (kept, _), *numbers = logged
    assert (kept["learning_rate"], kept["max_steps"]) == (1e-2, 2)
    assert [(step, sorted(values)[0]) for values, step in numbers] == [
        (0, "eval/loss"),
        (1, "train/grad_norm"),
        (2, "train/grad_norm"),
        (2, "eval/loss"),
    ]


def test_the_trackers_are_those_of_accelerate() -> None:
    from accelerate.utils import LoggerType

    trackers = set(get_args(Tracker))
    assert {str(kind.value) for kind in LoggerType} - {"all"} >= trackers - {"swanlab", "trackio"}
    assert trackers >= {str(kind.value) for kind in LoggerType} - {"all"}


@pytest.mark.slow
def test_sources_are_given_in_python_too(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    whole = DataSource(path=str(data))
    arguments = {**QUICK, "backbone": str(tiny_folders["t5"])}
    finetune([whole, replace(whole, weight=2)], output=tmp_path / "a", **arguments)
    finetune([whole], output=tmp_path / "b", **arguments)
    finetune(data, output=tmp_path / "c", **arguments)
    one, b, c = (log_of(tmp_path / name)[0]["samples"] for name in "abc")
    assert (one, b, c) == (2, 2, 2)
    assert result(tmp_path / "b") == result(tmp_path / "c")
    assert result(tmp_path / "a") != result(tmp_path / "b")
