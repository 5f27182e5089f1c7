"""The verb `finetune` as Python calls it: from a file to an adapter in one call."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

import vlinstruct as vli
from vlinstruct.errors import InputError, ResourceError, UsageError
from vlinstruct.training.finetune import finetune, plan_finetuning
from vlinstruct.training.job import Plan, Progress

from .training_set import write_data

QUICK = {"learning_rate": 1e-2, "warmup_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}


def test_a_file_becomes_an_adapter_in_one_call(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    data, backbone, adapter = write_data(tmp_path / "data"), str(tiny_folders["t5"]), tmp_path / "adapter"
    outcome = finetune(data, backbone=backbone, output=adapter, device="cpu", max_steps=3, eval_data=data, **QUICK)
    assert (outcome.folder, outcome.step, outcome.num_steps, outcome.is_complete) == (adapter, 3, 3, True)
    log = [json.loads(line) for line in (adapter / "log.jsonl").read_text().splitlines()]
    assert list(outcome.losses) == [line["loss"] for line in log if "loss" in line]
    assert outcome.validations == {line["step"]: line["eval_loss"] for line in log if "eval_loss" in line}
    assert (outcome.best_step, outcome.best_loss) == (3, outcome.validations[3])
    assert vli.load(backbone, adapter=adapter, device="cpu").ask(data.parent / "0.png", "what is 0?")
    training = json.loads((adapter / "alignment_config.json").read_text())["training"]
    assert (training["backbone"], training["learning_rate"]) == (backbone, 1e-2)


def test_a_backbone_that_does_not_fit_is_refused_with_what_would_fit(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_data(tmp_path / "data")
    for free, advised in ((10_000, "a smaller --backbone"), (800_000, "--quantize 8bit")):
        monkeypatch.setattr("vlinstruct.backends.instructblip.memory.free_bytes", lambda device, free=free: free)
        with pytest.raises(ResourceError, match="its weights take") as refused:
            finetune(data, backbone=str(tiny_folders["t5"]), output=tmp_path / "adapter", device="cpu", max_steps=1)
        assert advised in refused.value.advice


def test_what_is_stopped_says_so_and_is_resumed(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    data, backbone = write_data(tmp_path / "data"), str(tiny_folders["t5"])
    calls: list[str] = []
    updates: list[object] = []
    progress = Progress(
        on_loaded=lambda: calls.append("loaded"),
        on_plan=lambda plan, step: calls.append(f"{step} of {plan.num_steps}"),
        on_step=updates.append,
        should_stop=lambda: len(updates) == 1,
    )
    settings = {"backbone": backbone, "output": tmp_path / "a", "device": "cpu", "max_steps": 3, **QUICK}
    stopped = finetune(data, progress=progress, **settings)
    assert (stopped.step, stopped.is_complete, len(stopped.losses)) == (2, False, 2)
    assert calls == ["loaded", "0 of 3"]
    with pytest.raises(InputError, match="it holds a run"):
        finetune(data, **settings)
    assert finetune(data, resume=True, **settings).is_complete


def test_a_plan_writes_nothing(tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_data(tmp_path / "data")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    plan = plan_finetuning(data, backbone=str(tiny_folders["t5"]), device="cpu", eval_data=data, max_steps=3, **QUICK)
    assert isinstance(plan, Plan)
    assert (plan.num_samples, plan.num_validation, plan.num_steps, plan.num_rows) == (7, 7, 3, 2)
    assert list((tmp_path / "here").iterdir()) == []


def test_an_unknown_setting_is_named_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown setting learning_rte; did you mean learning_rate"):
        finetune("nowhere.jsonl", output=tmp_path / "a", learning_rte=1.0)
    assert not (tmp_path / "a").exists()


def test_what_could_not_succeed_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="contradict"):
        finetune("nowhere.jsonl", output=tmp_path / "a", push_to_hub="me/mine", offline=True)
    monkeypatch.setattr("vlinstruct.training.finetune.find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=r"vlinstruct\[tensorboard\]"):
        plan_finetuning("nowhere.jsonl", report_to="tensorboard")
    with pytest.raises(ResourceError, match=r"vlinstruct\[lora\]"):
        finetune(output=tmp_path / "a", backbone="mini", lora=True)
    assert list(tmp_path.iterdir()) == []


def test_the_verb_is_callable_however_it_is_imported_again(tmp_path: Path) -> None:
    from vlinstruct.training.finetune import finetune as again

    assert again is finetune
    assert callable(again)
    assert sys.modules["vlinstruct.training.finetune"].finetune is again


@pytest.fixture
def few_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mini's example set in less time."""
    monkeypatch.setattr("vlinstruct.training.sets._EXAMPLE_PICTURES", 2)
    monkeypatch.setattr("vlinstruct.training.sets._EXAMPLE_EVAL_PICTURES", 1)


def everything(folder: Path) -> dict[Path, bytes | None]:
    """Returns all files with their content, and folders."""
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.usefixtures("few_examples")
def test_a_run_that_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device"):
        finetune(output=tmp_path / "deep" / "er" / "a", backbone="mini", device="cuda:77")
    assert everything(tmp_path) == {}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="--override cannot change"):  # said under the lock
        finetune(output=tmp_path / "a", backbone="mini", device="cpu", resume=True, override=("seed",))
    assert list(everything(tmp_path)) == [tmp_path / "a", tmp_path / "a" / "mine.txt"]


@pytest.mark.usefixtures("few_examples")
def test_a_resume_with_other_data_names_them_and_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    data, other = write_data(tmp_path / "data"), tmp_path / "data" / "other.jsonl"
    settings = {"backbone": "mini", "output": tmp_path / "a", "device": "cpu", "max_steps": 1, **QUICK}
    finetune(data, **settings)
    before = everything(tmp_path / "a")
    other.write_text(data.read_text().replace('"aa"', '"ab"'))
    with pytest.raises(InputError, match=r"data was .*data\.jsonl, is .*other\.jsonl") as caught:
        finetune(other, resume=True, **settings)
    assert not re.search(r"\b[0-9a-f]{16}\b", caught.value.message)  # no checksum
    assert everything(tmp_path / "a") == before
    data.write_text(other.read_text())
    with pytest.raises(InputError, match=r"data was changed since then \(.*data\.jsonl\)"):
        finetune(data, resume=True, **settings)
    assert everything(tmp_path / "a") == before


@pytest.mark.parametrize(("warmup_steps", "reached"), [(1000, "2e-05 of 0.01"), (3, "0.0067 of 0.01"), (2, None)])
def test_a_training_that_ends_within_its_warm_up_says_so_first(
    warmup_steps: int, reached: str | None, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    settings = {**QUICK, "warmup_steps": warmup_steps, "backbone": str(tiny_folders["t5"]), "max_steps": 3}
    told: list[str] = []
    data = write_data(tmp_path / "data")
    plan = plan_finetuning(data, device="cpu", notify=told.append, **settings)
    finetune(data, output=tmp_path / "a", device="cpu", progress=Progress(notify=told.append), **settings)
    said = [notice for notice in told if "warm-up" in notice]
    assert said == [] if reached is None else [reached in notice for notice in said] == [True, True]
    log = [json.loads(line)["learning_rate"] for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert max(log) == pytest.approx(plan.highest_learning_rate)


@pytest.mark.parametrize(("max_steps", "is_said"), [(3, False), (4, False), (1000, True)])
def test_more_updates_than_the_epochs_have_are_said(
    max_steps: int, is_said: bool, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    settings = {**QUICK, "backbone": str(tiny_folders["t5"]), "device": "cpu", "max_steps": max_steps}
    told: list[str] = []
    plan = plan_finetuning(write_data(tmp_path / "data"), num_train_epochs=1, notify=told.append, **settings)
    assert plan.num_steps == min(max_steps, 4)
    end = "--num-train-epochs ends the training after 4 updates, before --max-steps 1,000"
    assert [notice for notice in told if "--max-steps" in notice] == [end] * is_said


def test_settings_that_change_nothing_are_said(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    told: list[str] = []
    settings = {**QUICK, "backbone": str(tiny_folders["t5"]), "device": "cpu", "notify": told.append}
    data = write_data(tmp_path / "data")
    plan_finetuning(data, lora_r=4, lora_alpha=16, **settings)  # 16 is the default: in every settings.yaml
    assert [notice for notice in told if "lora" in notice] == ["without lora these change nothing: lora_r"]
