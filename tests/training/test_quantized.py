"""Training through a quantized language model: the gradients of its dequantized weights, and a run that goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import vlinstruct as vli
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.errors import InputError, UsageError
from vlinstruct.settings import Quantization
from vlinstruct.training.devices import Devices
from vlinstruct.training.examples import answer_nll
from vlinstruct.training.finetune import finetune, plan_finetuning
from vlinstruct.training.frontier import unfreeze
from vlinstruct.training.job import Progress
from vlinstruct.weights.memory import Quantizable

from .training_set import SETTINGS, write_data

BITS: tuple[Quantization, ...] = ("8bit", "4bit")
PROMPTS, ANSWERS = [[3, 4, 5, 6], [7, 8]], [[4, 5, 1], [6, 1]]
QUICK = {"learning_rate": 0.01, "warmup_steps": 1, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}


def dequantized(quantized: InstructBlipBackend, folder: Path, quantize: Quantization) -> InstructBlipBackend:
    """Returns the same model, each quantized matrix written out."""
    whole = vli.load(str(folder), device="cpu").backend
    part: Quantizable = whole.network.config.quantizable
    for name, layer in whole.network.named_modules():
        if isinstance(layer, nn.Linear) and part.includes(f"{name}.weight", layer.weight.shape, quantize):
            with torch.no_grad():
                layer.weight.copy_(quantized.network.get_submodule(name)(torch.eye(layer.in_features)).t())
    return whole


def gradients(backend: InstructBlipBackend) -> dict[str, torch.Tensor]:
    """Of a projection and LoRA matrices, none of them zero, after a validation."""
    learning = unfreeze(backend.network, replace(SETTINGS, lora=True, lora_r=2, lora_dropout=0.0))
    draw = torch.Generator().manual_seed(1)
    for parameter in learning.values():
        parameter.data = torch.randn(parameter.shape, generator=draw) * 0.1
    hidden = torch.randn(2, 8, backend.network.config.qformer_config.hidden_size, generator=draw)
    language_model = backend.network.language_model
    for is_learning in (False, True):
        language_model.train(is_learning)
        with torch.set_grad_enabled(is_learning):
            nll = answer_nll(backend, backend.network.language_projection(hidden), PROMPTS, ANSWERS)
    nll.backward()
    return {name: parameter.grad for name, parameter in learning.items() if parameter.grad is not None}


@pytest.mark.parametrize("quantize", BITS)
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_gradients_are_those_of_the_dequantized_weights(
    kind: str, quantize: Quantization, tiny_folders: dict[str, Path]
) -> None:
    folder = tiny_folders[kind]
    quantized = vli.load(str(folder), device="cpu", quantize=quantize).backend
    whole = dequantized(quantized, folder, quantize)
    ours, plain = gradients(quantized), gradients(whole)
    assert ours.keys() == plain.keys()
    assert any("lora_A" in name for name in ours)
    for name, gradient in plain.items():
        assert (ours[name] - gradient).norm() / gradient.norm() < 1e-5, name


def test_no_four_bit_layer_that_is_trained_through_is_repacked(tiny_folders: dict[str, Path]) -> None:
    """On a CPU with AVX-512 for bfloat16 a validation would, and the gradients behind it would be gone."""
    network = vli.load(str(tiny_folders["llama"]), device="cpu", quantize="4bit").backend.network
    layers = [layer for layer in network.modules() if hasattr(layer, "support_avx512bf16_for_cpu")]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = True
    unfreeze(network, SETTINGS)
    assert len(layers) > 0
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


@pytest.mark.parametrize(("kind", "quantize"), [("t5", "4bit"), ("llama", "8bit")])
def test_a_quantized_run_is_resumed_as_it_was_begun_and_its_adapter_fits_every_storage(
    kind: str, quantize: Quantization, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    data, backbone = write_data(tmp_path / "data"), str(tiny_folders[kind])
    settings = {"backbone": backbone, "device": "cpu", "max_steps": 3, "lora": True, **QUICK}
    finetune(data, output=tmp_path / "whole", quantize=quantize, **settings)
    updates: list[object] = []
    stopping = Progress(on_step=updates.append, should_stop=lambda: len(updates) == 1)
    stopped = finetune(data, output=tmp_path / "a", quantize=quantize, progress=stopping, **settings)
    assert not stopped.is_complete
    other: Quantization = "8bit" if quantize == "4bit" else "4bit"
    with pytest.raises(InputError, match=f"quantize was {quantize}, is {other}"):
        finetune(output=tmp_path / "a", resume=True, device="cpu", quantize=other)
    assert finetune(output=tmp_path / "a", resume=True, device="cpu").is_complete
    for name in ("alignment.safetensors", "lora/adapter_model.safetensors", "log.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert json.loads((tmp_path / "a/alignment_config.json").read_text())["training"]["quantize"] == quantize
    card = (tmp_path / "a/README.md").read_text()
    assert f"| `quantize` | {quantize} |" in card
    assert f" --adapter FOLDER --quantize {quantize}\n" in card
    for storage in (None, *BITS):
        model = vli.load(backbone, adapter=tmp_path / "a", device="cpu", quantize=storage)
        assert model.score(data.parent / "0.png", "what is 0?")


def test_a_plan_counts_the_weights_as_they_are_stored(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    data, backbone = write_data(tmp_path / "data"), str(tiny_folders["t5"])
    whole, eighth = (
        plan_finetuning(data, backbone=backbone, device="cpu", lora=True, quantize=bits) for bits in (None, "8bit")
    )
    frozen = [
        parameter
        for name, parameter in vli.load(backbone, device="cpu").backend.network.named_parameters()
        if not name.startswith("language_projection")
    ]
    assert whole.weights_bytes == 4 * sum(parameter.numel() for parameter in frozen)
    assert eighth.weights_bytes < 0.9 * whole.weights_bytes


def test_quantized_weights_are_not_sharded(tiny_folders: dict[str, Path]) -> None:
    devices = Devices(cpu=True)
    devices.accelerator = SimpleNamespace(is_fsdp2=True, distributed_type="DistributedType.FSDP")  # type: ignore[assignment]
    language_model = vli.load(str(tiny_folders["t5"]), device="cpu").backend.network.language_model
    with pytest.raises(UsageError, match="--quantize and FSDP"):
        devices.shard(language_model, [], quantize="4bit")
