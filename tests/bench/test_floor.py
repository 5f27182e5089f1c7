"""A floor is made of the weights that a run reads, each time that it reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import empty_model
from vlinstruct.backends.instructblip.opening import load_backend
from vlinstruct.bench.answers import OurArms
from vlinstruct.bench.floor import floors, weight_bytes
from vlinstruct.bench.timing import picture
from vlinstruct.bench.workload import Workload

from .instructblip_shapes import TEXT, config_of


def bytes_of(network: nn.Module) -> int:
    return sum(
        weight.nbytes
        for module in network.modules()
        if not isinstance(module, nn.Embedding)
        for weight in module.parameters(recurse=False)
    )


def test_every_token_reads_the_language_model_once_more(tiny_folders: dict[str, Path]) -> None:
    backend = load_backend(str(tiny_folders["llama"]), device="cpu")
    arms = [OurArms(backend, [picture()], Workload(answer_tokens=number)) for number in (2, 3, 5)]
    two, three, five = (weight_bytes([backend.network], arm.plain) for arm in arms)
    language_model = bytes_of(backend.network.language_model)
    assert (three - two, five - three) == (language_model, 2 * language_model)
    # The picture, the Q-Former and the context are read once: the first token needs no pass of its own.
    outside = bytes_of(backend.network.vision_model) + bytes_of(backend.network.qformer)
    assert outside < two - 2 * language_model < bytes_of(backend.network)


def test_what_was_metered_is_left_as_it_was(tiny_folders: dict[str, Path]) -> None:
    backend = load_backend(str(tiny_folders["t5"]), device="cpu")
    arms = OurArms(backend, [picture()], Workload())
    least = floors([backend.network], {"plain": arms.plain, "AIO": arms.optimized})
    assert 0 < least["plain"] < least["AIO"]
    assert not any(module._forward_pre_hooks for module in backend.network.modules())


@pytest.mark.parametrize("kind", TEXT)
def test_the_shapes_that_are_measured_have_as_many_weights_as_they_say(kind: str) -> None:
    network = empty_model(InstructBlipConfig.from_dict(config_of(kind)))
    assert 100e6 < sum(weight.numel() for weight in network.parameters()) < 150e6
