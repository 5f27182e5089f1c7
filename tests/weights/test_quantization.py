"""Fewer bits for the language model's blocks: nearly the same outputs, everything else bit for bit as it was."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_models import tiny_config
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import vlinstruct as vli
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import load_model
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.backends.registry import mini_folder
from vlinstruct.bench.models import random_model
from vlinstruct.errors import InputError, ResourceError
from vlinstruct.settings import Quantization
from vlinstruct.weights.quantization import quantized_linear, replace_linears, require_quantization

CPU = torch.device("cpu")
BITS: tuple[Quantization, ...] = ("8bit", "4bit")


@pytest.mark.parametrize(("quantize", "tolerance"), [("8bit", 0.02), ("4bit", 0.12)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_quantized_layer_is_nearly_the_plain_one(
    quantize: Quantization, tolerance: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    plain, inputs = nn.Linear(128, 256, bias=False), torch.randn(3, 5, 128)
    layer = quantized_linear(plain.weight.data, quantize, device=CPU, dtype=dtype)
    with torch.inference_mode():
        got, expected = layer(inputs.to(dtype)), plain(inputs)
    assert got.dtype == dtype
    assert 0 < (got.float() - expected).norm() / expected.norm() < tolerance


@pytest.mark.parametrize("quantize", BITS)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
def test_gradients_through_a_quantized_layer_are_those_of_its_dequantized_weight(
    quantize: Quantization, dtype: torch.dtype, most: float
) -> None:
    torch.manual_seed(0)
    weight, inputs = torch.randn(256, 128), torch.randn(3, 5, 128, dtype=dtype, requires_grad=True)
    layer = quantized_linear(weight, quantize, device=CPU, dtype=dtype)
    with torch.no_grad():
        dequantized = layer(torch.eye(128, dtype=dtype)).t().float()
    shapes: list[torch.Size] = []
    with saved_tensors_hooks(lambda kept: (shapes.append(kept.shape), kept)[1], lambda kept: kept):
        outputs = layer(inputs)
    slope = torch.randn(3, 5, 256, dtype=dtype)
    outputs.backward(slope)
    assert inputs.grad is not None
    expected = slope.float() @ dequantized
    assert (inputs.grad.float() - expected).norm() / expected.norm() < most
    assert all(shape.numel() < weight.numel() for shape in shapes), "the weight is kept at full size"


@pytest.mark.parametrize("quantize", BITS)
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_only_the_language_models_blocks_change(
    kind: str, quantize: Quantization, tiny_folders: dict[str, Path]
) -> None:
    plain, quantized = (
        load_model(tiny_folders[kind], device=CPU, dtype=torch.float32, quantize=how).network
        for how in (None, quantize)
    )
    before, after = _linears(plain), _linears(quantized)
    changed = {name for name, layer in before.items() if not _is_same(layer, after[name])}
    kept_parts = ("lm_head", *["wo"] * (quantize == "8bit"))
    assert changed == {
        name for name in before if name.startswith("language_model.") and name.rpartition(".")[2] not in kept_parts
    }
    kept = {name: value for name, value in plain.named_parameters() if not _is_of(name, changed)}
    found = dict(quantized.named_parameters())
    assert all(torch.equal(found[name], value) for name, value in kept.items())


def _linears(model: InstructBlip) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def _is_same(one: nn.Module, other: nn.Module) -> bool:
    return type(one) is type(other) and type(one.weight.data) is type(other.weight.data)


def _is_of(parameter: str, layers: set[str]) -> bool:
    return parameter.rpartition(".")[0] in layers


def test_minis_scores_in_8_bits_are_nearly_those_of_the_whole() -> None:
    """They are off by about 0.1 %."""
    picture, asked = Image.new("RGB", (60, 60), "red"), ("What colour is the background?", "What is written?")
    whole, small = (
        [one.ias for one in vli.load("mini", device="cpu", quantize=bits).score(picture, *asked)]
        for bits in (None, "8bit")
    )
    assert small != whole
    assert small == pytest.approx(whole, rel=0.02)


def test_a_bias_goes_along() -> None:
    config = tiny_config("llama")
    config["text_config"] = {**config["text_config"], "attention_bias": True}
    model = random_model(InstructBlipConfig.from_dict(config), CPU, torch.float32)
    layer = model.get_submodule("language_model.model.layers.0.self_attn.q_proj")
    bias = layer.bias
    assert isinstance(layer, nn.Linear)
    smaller = quantized_linear(layer.weight.data, "8bit", device=CPU, dtype=torch.float32)
    replace_linears(model, {"language_model.model.layers.0.self_attn.q_proj": smaller})
    placed = model.get_submodule("language_model.model.layers.0.self_attn.q_proj")
    assert placed is smaller
    assert placed.bias is bias


@pytest.mark.parametrize(("quantize", "library"), [("8bit", "torchao"), ("4bit", "bitsandbytes")])
def test_a_missing_library_is_named_with_its_extra(
    quantize: Quantization, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, f"{library}.quantization", None)
    with pytest.raises(ResourceError, match=rf"needs {library}.*pip install 'vlinstruct\[quantize\]'"):
        require_quantization(quantize, CPU)


def test_a_device_that_no_library_quantizes_on_is_refused() -> None:
    with pytest.raises(InputError, match="no library quantizes on mps"):
        require_quantization("8bit", torch.device("mps"))


def test_logging_is_as_it_was_afterwards() -> None:
    require_quantization("8bit", CPU)
    assert logging.root.manager.disable == logging.NOTSET


def test_a_quantized_mini_answers(tmp_path: Path) -> None:
    """The answer is 9 nats likelier than the next best one, in 4 bits too."""
    path = tmp_path / "red.png"
    Image.new("RGB", (60, 60), "red").save(path)
    for quantize in BITS:
        model = vli.load(str(mini_folder()), device="cpu", quantize=quantize)
        assert model.ask(path, "What colour is the background?").text == "red"
