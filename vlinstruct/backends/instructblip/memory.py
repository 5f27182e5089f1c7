"""Does an InstructBLIP fit: what it takes in memory, where it goes on this machine, and the plan of both for people.

Weights are counted; keys, values and activations are estimated from the configuration, for plans and refusals: what a
library allocates for itself is not in them.

Legend: B rows, C context positions (image prefix and prompt), S written tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import empty_model
from vlinstruct.backends.registry import config_of, default_backbone
from vlinstruct.settings import Quantization
from vlinstruct.values import Identity
from vlinstruct.weights.memory import WeightCount, available_bytes, count_weights, require_memory, stored_shapes
from vlinstruct.weights.placement import Budget, Placement, distribute, free_bytes, gpus

_ITEMSIZES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
_QUANTIZATIONS: Sequence[Quantization | None] = (None, "8bit", "4bit")


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked of a model at once.

    Args:
        rows: pictures that go through it together, B.
        prompt_tokens: of each row's prompt; the image prefix is added, twice its queries as under EMA.
        new_tokens: of each row's answer, S.
    """

    rows: int = 1
    prompt_tokens: int = 128
    new_tokens: int = 64

    def context(self, config: InstructBlipConfig) -> int:
        """Returns C."""
        # The longer prefix: whether an adapter will switch EMA on is not known yet.
        return config.num_prefix_tokens(use_ema=True) + self.prompt_tokens


def cache_bytes(config: InstructBlipConfig, load: Load, itemsize: int) -> int:
    """Returns what keys and values take: of context and answer, in every layer that decodes."""
    return config.text_config.cache_bytes(load.rows * (load.context(config) + load.new_tokens), itemsize)


def activation_bytes(config: InstructBlipConfig, load: Load, itemsize: int) -> int:
    """Returns what the widest layer keeps at once, the vision tower's or the language model's, and the logits."""
    vision, text = config.vision_config, config.text_config
    vision_bytes = load.rows * vision.num_positions * (4 * vision.hidden_size + 2 * vision.intermediate_size) * itemsize
    text_bytes = text.activation_bytes(load.rows, load.context(config), itemsize)
    logits_bytes = load.rows * text.vocab_size * (4 + itemsize)  # once more in float32
    # The larger, not the sum: the tower is done with its layers when the language model begins.
    return max(vision_bytes, text_bytes) + logits_bytes


def working_bytes(config: InstructBlipConfig, load: Load, itemsize: int) -> int:
    """Returns what a model takes beside its weights while it computes: keys, values and activations."""
    return cache_bytes(config, load, itemsize) + activation_bytes(config, load, itemsize)


def place(
    identity: Identity, device: torch.device, *, itemsize: int, quantize: Quantization | None, may_spread: bool
) -> Placement:
    """Decides where a model lies, before a tensor of it is read.

    Args:
        identity: of its folder.
        device: where it computes.
        itemsize: bytes of a number in the dtype that it computes in.
        quantize: how its language model is quantized; that is never spread.
        may_spread: whether other GPUs and memory may help out where `device` is a GPU that is too small.

    Raises:
        ResourceError: it does not fit; says what would make it fit.
        CheckpointError: a file is missing or damaged.
    """
    folder, config = identity.folder, InstructBlipConfig.from_dict(identity.config)
    assert folder is not None  # a server is another backend's
    shapes, free = stored_shapes(folder), free_bytes(device)
    weights = count_weights(shapes, config.quantizable)
    working = working_bytes(config, Load(), itemsize)
    is_too_large = free is not None and weights.num_bytes(itemsize) + working > free
    if is_too_large and may_spread and quantize is None and device.type == "cuda":
        memory = Budget(device=torch.device("cpu"), free=available_bytes() or 0)
        # Block by block as the model reads them: a file may have 10 before 2.
        shapes.sort(key=lambda pair: [part.zfill(5) if part.isdigit() else part for part in pair[0].split(".")])
        return distribute(
            shapes, weights, gpus(), memory, quantizable=config.quantizable, itemsize=itemsize, working=working
        )
    require_memory(weights, folder, itemsize=itemsize, quantize=quantize, available=free, working=working)
    return Placement(main=device)


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What one way to load a backbone takes.

    Args:
        dtype: what it computes in.
        quantize: how its language model is stored.
        weights_bytes: of all weights.
        cache_bytes: of keys and values.
        activation_bytes: of the widest layer, estimated.
        fits_on: the devices that have as much free.
    """

    dtype: str
    quantize: Quantization | None
    weights_bytes: int
    cache_bytes: int
    activation_bytes: int
    fits_on: Sequence[str]

    @property
    def total_bytes(self) -> int:
        """Weights, cache and activations together."""
        return self.weights_bytes + self.cache_bytes + self.activation_bytes


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What a backbone takes, and what is free.

    Args:
        backbone: as it was named.
        load: what was asked of it at once.
        weights: its numbers.
        footprints: of the ways to load it.
        free: bytes by device; None where it does not tell.
    """

    backbone: str
    load: Load
    weights: WeightCount
    footprints: Sequence[Footprint]
    free: Mapping[str, int | None]


def plan_memory(
    backbone: str | None = None, *, batch_size: int = 1, prompt_tokens: int = 128, max_new_tokens: int = 64
) -> MemoryPlan:
    """Works out what a backbone takes in memory, in every dtype and quantization, and on which devices here it fits.

    Nothing is downloaded or loaded: the configurations of the known backbones ship, and a module on the meta device has
    their shapes.

    Args:
        backbone: a known name, or a folder with a config.json; `$VLINSTRUCT_BACKBONE` or mini if None.
        batch_size: pictures that go through it together.
        prompt_tokens: of each instruction.
        max_new_tokens: of each answer.

    Raises:
        CheckpointError: its shape is not known here.
    """
    name = default_backbone() if backbone is None else backbone
    config = InstructBlipConfig.from_dict(config_of(name))
    load = Load(rows=batch_size, prompt_tokens=prompt_tokens, new_tokens=max_new_tokens)
    shapes = ((name, tuple(tensor.shape)) for name, tensor in empty_model(config).state_dict().items())
    weights = count_weights(shapes, config.quantizable)
    free: dict[str, int | None] = {str(gpu.device): gpu.free for gpu in gpus()}
    free["cpu"] = free_bytes(torch.device("cpu"))
    footprints = []
    for dtype, itemsize in _ITEMSIZES.items():
        if dtype == "float16" and config.text_config.overflows_in_float16:
            continue
        caches, activations = cache_bytes(config, load, itemsize), activation_bytes(config, load, itemsize)
        for quantize in _QUANTIZATIONS:
            size = weights.num_bytes(itemsize, quantize)
            needed = size + caches + activations
            footprints.append(
                Footprint(
                    dtype=dtype,
                    quantize=quantize,
                    weights_bytes=size,
                    cache_bytes=caches,
                    activation_bytes=activations,
                    fits_on=[device for device, room in free.items() if room is None or needed <= room],
                )
            )
    return MemoryPlan(backbone=name, load=load, weights=weights, footprints=footprints, free=free)
