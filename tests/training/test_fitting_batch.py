"""How many samples go through the model at once where nobody says it: as many as fit on an accelerator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_models import LLAMA_TEXT, T5_TEXT, tiny_config
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.memory import InstructBlipNeeds
from vlinstruct.backends.memory import Load
from vlinstruct.bench.models import random_model
from vlinstruct.training import finetune as command
from vlinstruct.training.finetune import finetune, plan_finetuning
from vlinstruct.training.job import Progress, fitting_batch
from vlinstruct.training.settings import UNKNOWN_BATCH_SIZE, TrainingSettings, batch_choices

from .training_set import model, samples, write_data

USUAL = TrainingSettings()
WIDER: dict[str, dict[str, Any]] = {
    "t5": T5_TEXT | {"d_model": 64, "d_ff": 256, "d_kv": 16},
    "llama": LLAMA_TEXT | {"hidden_size": 64, "intermediate_size": 256},
}


def kept_bytes(config: InstructBlipConfig, context: int, num_targets: int) -> int:
    """Counts what three rows keep for the backward pass in all layers, weights left out."""
    language_model = random_model(config, torch.device("cpu"), torch.float32).language_model.requires_grad_(False)
    embeds = torch.randn(3, context, config.text_config.hidden_size, requires_grad=True)
    targets = torch.randint(4, 98, (3, num_targets))
    weights = {parameter.data_ptr() for parameter in language_model.parameters()}
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = language_model.target_hidden(embeds, torch.ones(3, context), targets)
    assert hidden.requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize("kind", ["t5", "llama"])
@pytest.mark.parametrize(("context", "num_targets"), [(16, 4), (8, 16)])
def test_what_layers_keep_is_what_is_counted(kind: str, context: int, num_targets: int) -> None:
    config = InstructBlipConfig.from_dict(tiny_config(kind) | {"text_config": WIDER[kind]})
    estimated = 3 * config.text_config.kept_bytes(context, num_targets, 4)
    # A CPU's attention keeps other things than an accelerator's kernels.
    assert 0.85 < kept_bytes(config, context, num_targets) / estimated < 1.1


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_more_and_longer_samples_take_more_and_checkpointing_less(kind: str) -> None:
    needs = InstructBlipNeeds(InstructBlipConfig.from_dict(tiny_config(kind)))
    usual = needs.training_bytes(Load(rows=4, prompt_tokens=20, new_tokens=10), 4)
    for more in ({"rows": 8}, {"prompt_tokens": 40}, {"new_tokens": 20}):
        assert needs.training_bytes(Load(**{"rows": 4, "prompt_tokens": 20, "new_tokens": 10, **more}), 4) > usual
    load = Load(rows=4, prompt_tokens=20, new_tokens=10)
    assert needs.training_bytes(load, 4, gradient_checkpointing=True) < usual
    assert needs.training_bytes(load, 4, lora=True) > needs.training_bytes(load, 4, quantize="8bit") > usual
    assert needs.training_bytes(load, 4, quantize="4bit") == usual


def test_as_many_samples_go_together_as_fit(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    backend, learned = model(tiny_folders["t5"]), samples(tmp_path)
    choices = batch_choices({}, "")
    assert choices[0] == UNKNOWN_BATCH_SIZE
    for rows in choices:
        needed = fitting_batch(backend, learned, [rows], 0, settings=USUAL).num_bytes
        assert fitting_batch(backend, learned, choices, needed, settings=USUAL).rows == rows
        assert fitting_batch(backend, learned, choices, needed - 1, settings=USUAL).rows == max(1, rows // 2)


def test_a_run_keeps_how_many_it_chose_whatever_is_free_later(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, backbone, output = write_data(tmp_path / "data"), str(tiny_folders["t5"]), tmp_path / "a"
    needed = fitting_batch(model(tiny_folders["t5"]), samples(tmp_path / "data"), [4], 0, settings=USUAL).num_bytes
    monkeypatch.setattr(command, "_free_on_accelerator", lambda device: needed)
    notices: list[str] = []
    asked = {"backbone": backbone, "device": "cpu", "num_train_epochs": 2, "warmup_steps": 1}
    plan = plan_finetuning(data, notify=notices.append, **asked)
    assert (plan.num_rows, plan.batch_size) == (4, UNKNOWN_BATCH_SIZE)
    assert notices == [
        "4 samples at once, 8 times per update: the longest 4 take about 0.0 GB, 0.0 GB are free "
        "(--per-device-train-batch-size)"
    ]
    updates: list[object] = []
    stopping = Progress(
        on_step=updates.append, should_stop=lambda: len(updates) == 0 and (output / "log.jsonl").exists()
    )
    stopped = finetune(data, output=output, progress=stopping, **asked)
    assert not stopped.is_complete
    monkeypatch.setattr(command, "_free_on_accelerator", lambda device: 10 * needed)
    later: list[str] = []
    assert finetune(output=output, resume=True, device="cpu", progress=Progress(notify=later.append)).is_complete
    assert not any("at once" in notice for notice in later)
    assert yaml.safe_load((output / "settings.yaml").read_text())["per_device_train_batch_size"] == 4


def test_what_is_given_stays_and_a_cpu_takes_eight(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, backbone = write_data(tmp_path / "data"), str(tiny_folders["t5"])
    assert plan_finetuning(data, backbone=backbone, device="cpu").num_rows == 8
    monkeypatch.setattr(command, "_free_on_accelerator", lambda device: 10**15)
    assert plan_finetuning(data, backbone=backbone, device="cpu").num_rows == UNKNOWN_BATCH_SIZE
    assert plan_finetuning(data, backbone=backbone, device="cpu", per_device_train_batch_size=2).num_rows == 2
    assert plan_finetuning(data, backbone=backbone, device="cpu", gradient_accumulation_steps=2).num_rows == 8
