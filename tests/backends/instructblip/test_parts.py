"""A part looks its layers up once, and calls those that must be called: with hooks, or with a way of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vlinstruct as vli
from vlinstruct.backends.instructblip.attention import ready
from vlinstruct.backends.instructblip.encoder import VisionMlp


class Doubled(nn.Linear):
    def forward(self, hidden: Tensor) -> Tensor:
        return 2 * super().forward(hidden)


class Doubling(Tensor):
    """A weight with a product of its own, as torchao's quantized ones have."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not nn.functional.linear:
            return super().__torch_function__(function, types, args, kwargs or {})
        hidden, weight, bias = args  # by position, as torchao's take them
        return 2 * function(hidden, weight.as_subclass(Tensor), bias)


@pytest.fixture
def mlp(tiny_folders: dict[str, Path]) -> VisionMlp:
    model = vli.load(str(tiny_folders["t5"]), device="cpu")
    part = model.backend.network.vision_model.encoder.layers[0].mlp
    assert isinstance(part, VisionMlp)
    return part


@pytest.mark.parametrize("how", ["hook", "pre-hook", "own forward", "own class", "own weight"])
def test_a_layer_that_must_be_called_is_called(how: str, mlp: VisionMlp) -> None:
    hidden, called = torch.randn(1, 3, mlp.fc1.in_features), []
    layer = mlp.fc2
    plain = ready(mlp)(hidden)
    doubled = 2 * plain
    match how:
        case "hook":
            layer.register_forward_hook(lambda module, inputs, output: 2 * output)
        case "pre-hook":
            layer.register_forward_pre_hook(lambda module, inputs: called.append(module))
            doubled = plain
        case "own forward":  # accelerate's, which fetches the weights first
            forward = layer.forward
            layer.forward = lambda hidden: 2 * forward(hidden)  # type: ignore[method-assign]
        case "own class":
            mlp.fc2 = Doubled(layer.in_features, layer.out_features)
            mlp.fc2.load_state_dict(layer.state_dict())
        case "own weight":
            layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Doubling))
    with torch.inference_mode():
        torch.testing.assert_close(ready(mlp)(hidden), doubled)
    assert called == ([layer] if how == "pre-hook" else [])


def test_a_part_follows_a_training(mlp: VisionMlp) -> None:
    """What was looked up holds the parameters themselves: an optimizer's step is seen."""
    hidden, part = torch.randn(1, 3, mlp.fc1.in_features), ready(mlp)
    before = part(hidden)
    with torch.no_grad():
        mlp.fc2.weight.mul_(2)
        mlp.fc2.bias.mul_(2)
    torch.testing.assert_close(part(hidden), 2 * before)
