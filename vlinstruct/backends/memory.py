"""What a backbone takes in memory, for people: in every dtype and quantization, and on which devices here that fits.

What one kind of model takes, its backend knows; `plan_memory` asks it (`Needs`) by the configuration alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from vlinstruct.backends.registry import config_of, default_backbone, is_instructblip
from vlinstruct.settings import Quantization
from vlinstruct.weights.memory import WeightCount
from vlinstruct.weights.placement import free_bytes, gpus

_ITEMSIZES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
_QUANTIZATIONS: Sequence[Quantization | None] = (None, "8bit", "4bit")


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked of a model at once.

    Args:
        rows: pictures that go through it together.
        prompt_tokens: of each row's prompt; those of its picture are added.
        new_tokens: of each row's answer.
    """

    rows: int = 1
    prompt_tokens: int = 128
    new_tokens: int = 64


class Needs(Protocol):
    """What a model takes, by its configuration."""

    @property
    def weights(self) -> WeightCount:
        """Its numbers."""

    @property
    def media_tokens(self) -> int:
        """The positions of one picture in front of a prompt; estimated where they depend on its size."""

    @property
    def overflows_in_float16(self) -> bool:
        """Whether it must not compute in float16."""

    def cache_bytes(self, load: Load, itemsize: int) -> int:
        """Returns what keys and values take: of context and answer, in every layer that keeps them."""

    def activation_bytes(self, load: Load, itemsize: int) -> int:
        """Returns what the widest layer keeps at once, estimated, and the logits."""


def working_bytes(needs: Needs, load: Load, itemsize: int) -> int:
    """Returns what a model takes beside its weights while it computes: keys, values and activations."""
    return needs.cache_bytes(load, itemsize) + needs.activation_bytes(load, itemsize)


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
        media_tokens: the positions of one picture, which are added to each prompt's.
        weights: its numbers.
        footprints: of the ways to load it.
        free: bytes by device; None where it does not tell.
    """

    backbone: str
    load: Load
    media_tokens: int
    weights: WeightCount
    footprints: Sequence[Footprint]
    free: Mapping[str, int | None]


def plan_memory(
    backbone: str | None = None, *, batch_size: int = 1, prompt_tokens: int = 128, max_new_tokens: int = 64
) -> MemoryPlan:
    """Works out what a backbone takes in memory, in every dtype and quantization, and on which devices here it fits.

    Nothing is downloaded or loaded: the configurations of the known backbones ship, and a module on the meta device has
    their shapes. Experts are counted whole.

    Args:
        backbone: a known name, a folder with a config.json, or a hub id whose config.json is in the cache;
            `$VLINSTRUCT_BACKBONE` or mini if None.
        batch_size: pictures that go through it together.
        prompt_tokens: of each instruction.
        max_new_tokens: of each answer.

    Raises:
        CheckpointError: its shape is not known here.
        ResourceError: transformers is too old for its kind.
    """
    name = default_backbone() if backbone is None else backbone
    config = config_of(name)
    needs: Needs
    # Here, not above: a plan of InstructBLIP shall not wait for transformers.
    if is_instructblip(config):
        from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
        from vlinstruct.backends.instructblip.memory import InstructBlipNeeds

        needs = InstructBlipNeeds(InstructBlipConfig.from_dict(config))
    else:
        from vlinstruct.backends.transformers.memory import TransformersNeeds

        needs = TransformersNeeds(config, name=name)
    weights, load = needs.weights, Load(rows=batch_size, prompt_tokens=prompt_tokens, new_tokens=max_new_tokens)
    free: dict[str, int | None] = {str(gpu.device): gpu.free for gpu in gpus()}
    free["cpu"] = free_bytes(torch.device("cpu"))
    footprints = []
    for dtype, itemsize in _ITEMSIZES.items():
        if dtype == "float16" and needs.overflows_in_float16:
            continue
        caches, activations = needs.cache_bytes(load, itemsize), needs.activation_bytes(load, itemsize)
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
    return MemoryPlan(
        backbone=name,
        load=load,
        media_tokens=needs.media_tokens,
        weights=weights,
        footprints=footprints,
        free=free,
    )
