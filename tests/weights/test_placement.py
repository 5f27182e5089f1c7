"""A model over several devices: filled in order, refused when all are too small, and the same bits as on one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import vlinstruct as vli
from vlinstruct.backends.instructblip import memory
from vlinstruct.backends.instructblip.load import load_model
from vlinstruct.backends.instructblip.memory import place
from vlinstruct.backends.registry import identity_of
from vlinstruct.errors import ResourceError
from vlinstruct.model import Model
from vlinstruct.weights.memory import Quantizable, count_weights, stored_shapes
from vlinstruct.weights.placement import Budget, Placement, distribute

CPU, FIRST, SECOND = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)
# 40 numbers that stay on the main device, and four layers of 100.
SHAPES = [("vision_model.x.weight", (4, 10))] + [(f"language_model.block.{i}.q.weight", (10, 10)) for i in range(4)]
BLOCKS = Quantizable(part="language_model")
WEIGHTS = count_weights(SHAPES, BLOCKS)


def spread(first: int, second: int, memory: int, working: int = 0) -> Placement:
    gpus = [Budget(device=FIRST, free=first), Budget(device=SECOND, free=second)]
    budget = Budget(device=CPU, free=memory)
    return distribute(SHAPES, WEIGHTS, gpus, budget, quantizable=BLOCKS, itemsize=2, working=working)


def layers(*numbers: int) -> set[str]:
    return {f"language_model.block.{number}.q" for number in numbers}


@pytest.mark.parametrize(
    ("first", "second", "memory", "elsewhere", "offloaded"),
    [
        (880, 0, 0, (), ()),
        (879, 200, 0, (3,), ()),
        (280, 600, 0, (1, 2, 3), ()),
        (480, 200, 200, (2,), (3,)),
        (80, 199, 800, (), (0, 1, 2, 3)),
    ],
)
def test_devices_are_filled_in_order(
    first: int, second: int, memory: int, elsewhere: tuple[int, ...], offloaded: tuple[int, ...]
) -> None:
    placement = spread(first, second, memory)
    assert set(placement.elsewhere) == layers(*elsewhere)
    assert set(placement.elsewhere.values()) <= {SECOND}
    assert placement.offloaded == layers(*offloaded)


def test_what_is_computed_with_needs_room_on_the_main_device() -> None:
    assert spread(880, 200, 0, working=1).elsewhere.keys() == layers(3)


@pytest.mark.parametrize(("first", "second", "memory"), [(79, 10**9, 10**9), (280, 200, 200)])
def test_devices_that_are_too_small_together_are_refused(first: int, second: int, memory: int) -> None:
    with pytest.raises(ResourceError, match="more than all devices have"):
        spread(first, second, memory)


def test_a_tensor_is_loaded_to_where_it_lies() -> None:
    placement = spread(480, 200, 200)
    found = [placement.device_of(name) for name, _ in SHAPES]
    assert found == [FIRST, FIRST, FIRST, SECOND, CPU]


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_offloaded_layers_give_the_same_bits(kind: str, tiny_folders: dict[str, Path]) -> None:
    picture, texts = Image.new("RGB", (30, 20), "green"), ("what is this?", "who?")
    whole = vli.load(str(tiny_folders[kind]), device="cpu")
    linears = [name for name in dict(whole.backend.network.named_modules()) if name.endswith((".q", ".wo", "_proj"))]
    names = [name for name in linears if name.startswith("language_model.")]
    placement = Placement(main=CPU, offloaded=frozenset(names[::2]), elsewhere=dict.fromkeys(names[1::2], CPU))
    parted = Model(
        load_model(tiny_folders[kind], device=CPU, dtype=torch.float32, placement=placement),
    )
    assert len(names) > 8
    assert [one.scores for one in parted.score(picture, *texts)] == [one.scores for one in whole.score(picture, *texts)]
    assert parted.ask(picture, "what?").text == whole.ask(picture, "what?").text
    assert parted.optimize("what?", picture) == whole.optimize("what?", picture)
    assert all(parted.backend.network.get_submodule(name).weight.is_meta for name in names[::2])


def test_one_gpu_that_is_too_small_gets_help_only_on_auto(
    tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1_500_000)
    monkeypatch.setattr(memory, "gpus", lambda: [Budget(device=FIRST, free=1_500_000)])
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**9)
    llama = identity_of(tiny_folders["llama"])
    need = count_weights(stored_shapes(tiny_folders["llama"]), BLOCKS).num_bytes(4)
    monkeypatch.setattr(memory, "working_bytes", lambda *_: 1_500_000 - need + 1)
    assert place(llama, FIRST, itemsize=4, quantize=None, may_spread=True).offloaded
    with pytest.raises(ResourceError, match="--quantize"):
        place(llama, FIRST, itemsize=4, quantize=None, may_spread=False)
    assert place(llama, FIRST, itemsize=4, quantize="8bit", may_spread=True) == Placement(main=FIRST)
