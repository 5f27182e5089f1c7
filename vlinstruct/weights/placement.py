"""Where a language model's linear layers lie when one device is too small: on it, on other GPUs, the rest in memory.

Everything that is computed stays on the main device, so that nothing else in the model knows of this: a layer on
another GPU gets its input and sends its output back, a few kilobytes a token; a layer in memory is copied to the main
device for each call. Vision tower, Q-Former, projection, embeddings, norms and head are always on the main device.
The copying is accelerate's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vlinstruct.errors import ResourceError
from vlinstruct.weights.memory import Quantizable, WeightCount, available_bytes

_GB = 10**9
_WEIGHT = ".weight"
_ROOM = 0.95  # of a GPU's free memory; the rest is the allocator's


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a device has room for.

    Args:
        device: which.
        free: bytes.
    """

    device: torch.device
    free: int


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a model lies.

    Args:
        main: the device that computes.
        elsewhere: linear layers that lie on another GPU, by name.
        offloaded: those that lie in memory.
    """

    main: torch.device
    elsewhere: Mapping[str, torch.device] = field(default_factory=dict)
    offloaded: frozenset[str] = frozenset()

    def device_of(self, name: str) -> torch.device:
        """Returns where a tensor is loaded to."""
        layer = name.removesuffix(_WEIGHT)
        return torch.device("cpu") if layer in self.offloaded else self.elsewhere.get(layer, self.main)


def free_bytes(device: torch.device) -> int | None:
    """Returns what a device has free; None where it does not tell."""
    if device.type == "cuda":
        return int(_ROOM * torch.cuda.mem_get_info(device)[0])
    return available_bytes()  # MPS shares the machine's memory


def gpus() -> Sequence[Budget]:
    """Returns all CUDA devices with what they have free, the first one first."""
    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [Budget(device=device, free=free_bytes(device) or 0) for device in devices]


def distribute(
    shapes: Iterable[tuple[str, Sequence[int]]],
    weights: WeightCount,
    gpus: Sequence[Budget],
    memory: Budget,
    *,
    quantizable: Quantizable,
    itemsize: int,
    working: int,
) -> Placement:
    """Fills the first GPU, then the others, then memory, layer by layer in the model's order.

    Args:
        shapes: the model's tensors.
        weights: their count.
        gpus: at least one; the first is the main device.
        memory: the CPU's.
        quantizable: tells the layers that may lie elsewhere, which are those that may be quantized.
        itemsize: bytes of a number.
        working: bytes that the main device needs while it computes.

    Raises:
        ResourceError: even together they are too small.
    """
    main, *other_gpus = gpus
    kept_bytes = (weights.total - weights.quantizable) * itemsize + working
    budgets = [Budget(device=main.device, free=main.free - kept_bytes), *other_gpus, memory]
    if budgets[0].free < 0:
        raise _too_large(weights, itemsize, budgets)
    places: dict[str, torch.device] = {}
    for name, shape in shapes:
        if not quantizable.includes(name, shape):
            continue
        size = shape[0] * shape[1] * itemsize
        # Full, although a smaller layer might still fit: what is lost is less than one layer of each device.
        while budgets and budgets[0].free < size:
            del budgets[0]
        if not budgets:
            raise _too_large(weights, itemsize, [*gpus, memory])
        budgets[0] = Budget(device=budgets[0].device, free=budgets[0].free - size)
        places[name.removesuffix(_WEIGHT)] = budgets[0].device
    return Placement(
        main=main.device,
        elsewhere={name: device for name, device in places.items() if device not in (main.device, memory.device)},
        offloaded=frozenset(name for name, device in places.items() if device == memory.device),
    )


def add_transfers(model: nn.Module, placement: Placement) -> None:
    """Makes the layers that do not lie on the main device get their inputs, or be copied there.

    Args:
        model: loaded where the placement says; its offloaded layers lie in memory.
        placement: where its layers lie.
    """
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    for name, device in placement.elsewhere.items():
        layer = model.get_submodule(name)
        add_hook_to_module(layer, AlignDevicesHook(execution_device=device, io_same_device=True))
    for name in placement.offloaded:
        layer = model.get_submodule(name)
        stored: dict[str, Tensor] = {key: value.data for key, value in layer.named_parameters()}
        hook = AlignDevicesHook(
            execution_device=placement.main,
            offload=True,
            io_same_device=True,
            weights_map=stored,
            place_submodules=False,
        )
        add_hook_to_module(layer, hook)


def _too_large(weights: WeightCount, itemsize: int, budgets: Sequence[Budget]) -> ResourceError:
    why = f"its weights take {weights.num_bytes(itemsize) / _GB:.1f} GB, more than all devices have"
    advice = "Use --quantize 4bit, or a smaller --backbone"
    return ResourceError.at("cannot load model", f"{len(budgets)} devices", why, advice, code="out_of_memory")
