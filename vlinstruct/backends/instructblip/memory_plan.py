"""What a backbone takes in memory, per dtype and quantization, and where that fits: before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig, T5Config
from vlinstruct.backends.instructblip.devices import free_bytes, gpus
from vlinstruct.backends.instructblip.load import empty_model
from vlinstruct.backends.instructblip.working_memory import Load, activation_bytes, cache_bytes
from vlinstruct.backends.registry import BACKBONES
from vlinstruct.errors import CheckpointError
from vlinstruct.files import read_json_object
from vlinstruct.settings import Quantization
from vlinstruct.weights.weight_count import WeightCount, count_weights

_ITEMSIZES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
_QUANTIZATIONS: Sequence[Quantization | None] = (None, "8bit", "4bit")


@dataclass(frozen=True, kw_only=True)
class Setting:
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
        """All of it."""
        return self.weights_bytes + self.cache_bytes + self.activation_bytes


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What a backbone takes, and what is free.

    Args:
        weights: its numbers.
        settings: the ways to load it.
        free: bytes by device; None where it does not tell.
    """

    weights: WeightCount
    settings: Sequence[Setting]
    free: Mapping[str, int | None]


def memory_plan(backbone: str, load: Load) -> MemoryPlan:
    """Works out what a backbone takes.

    Args:
        backbone: a known name, whose shape ships, or a folder with a config.json.
        load: what is asked of it at once.

    Raises:
        CheckpointError: its shape is not known here.
    """
    config = InstructBlipConfig.from_dict(_configuration(backbone))
    weights = count_weights((name, tuple(one.shape)) for name, one in empty_model(config).state_dict().items())
    free = _free()
    return MemoryPlan(weights=weights, settings=list(_settings(config, weights, load, free)), free=free)


def _configuration(backbone: str) -> dict[str, object]:
    if backbone in BACKBONES:
        return BACKBONES[backbone].config()
    path = Path(backbone).expanduser() / "config.json"
    if not path.is_file():
        advice = f"Give a folder with a config.json, or {', '.join(BACKBONES)}"
        raise CheckpointError.at("unknown backbone", backbone, "its shape is not known here", advice)
    return read_json_object(path)


def _free() -> dict[str, int | None]:
    found: dict[str, int | None] = {str(one.device): one.free for one in gpus()}
    return {**found, "cpu": free_bytes(torch.device("cpu"))}


def _settings(
    config: InstructBlipConfig, weights: WeightCount, load: Load, free: Mapping[str, int | None]
) -> Iterator[Setting]:
    for dtype, itemsize in _ITEMSIZES.items():
        if dtype == "float16" and isinstance(config.text_config, T5Config):
            continue  # overflows
        caches, activations = cache_bytes(config, load, itemsize), activation_bytes(config, load, itemsize)
        for quantize in _QUANTIZATIONS:
            size = weights.num_bytes(itemsize, quantize)
            needed = size + caches + activations
            yield Setting(
                dtype=dtype,
                quantize=quantize,
                weights_bytes=size,
                cache_bytes=caches,
                activation_bytes=activations,
                fits_on=[device for device, has in free.items() if has is None or needed <= has],
            )
