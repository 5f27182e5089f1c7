"""What this machine has free, and where a folder's model goes on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.working_memory import Load, working_bytes
from vlinstruct.files import read_json_object
from vlinstruct.settings import Quantization
from vlinstruct.weights.memory import available_bytes, require_memory
from vlinstruct.weights.placement import Budget, Placement, distribute
from vlinstruct.weights.safetensors_files import header, shards
from vlinstruct.weights.weight_count import weights_of

_ROOM = 0.95  # of a GPU's free memory; the rest is the allocator's


def free_bytes(device: torch.device) -> int | None:
    """Returns what a device has free; None where it does not tell."""
    if device.type == "cuda":
        return int(_ROOM * torch.cuda.mem_get_info(device)[0])
    return available_bytes()  # MPS shares the machine's memory


def gpus() -> Sequence[Budget]:
    """Returns all CUDA devices with what they have free, the first one first."""
    found = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [Budget(device=device, free=free_bytes(device) or 0) for device in found]


def place(
    folder: Path, device: torch.device, *, itemsize: int, quantize: Quantization | None, may_spread: bool
) -> Placement:
    """Decides where a folder's model lies, before a tensor of it is read.

    Args:
        folder: the model's.
        device: where it computes.
        itemsize: bytes of a number in the dtype that it computes in.
        quantize: how its language model is quantized; that is never spread.
        may_spread: whether other GPUs and memory may help out where `device` is a GPU that is too small.

    Raises:
        ResourceError: it does not fit; says what would make it fit.
        CheckpointError: a file is missing or damaged.
    """
    config = InstructBlipConfig.from_dict(read_json_object(folder / "config.json"))
    weights, free = weights_of(folder), free_bytes(device)
    working = working_bytes(config, Load(), itemsize)
    is_small = free is not None and weights.num_bytes(itemsize) + working > free
    if is_small and may_spread and quantize is None and device.type == "cuda":
        memory = Budget(device=torch.device("cpu"), free=available_bytes() or 0)
        return distribute(_shapes(folder), weights, gpus(), memory, itemsize=itemsize, working=working)
    require_memory(weights, folder, itemsize=itemsize, quantize=quantize, available=free, working=working)
    return Placement(main=device)


def _shapes(folder: Path) -> list[tuple[str, Sequence[int]]]:
    """Returns the tensors' names and shapes, block by block as the model reads them."""
    found = [(name, one["shape"]) for path in shards(folder) for name, one in header(path).items() if "shape" in one]
    return sorted(found, key=lambda pair: [part.zfill(5) if part.isdigit() else part for part in pair[0].split(".")])
