"""The least that a run could take: the weights that it reads, as often as it reads them, at the memory's speed.

Writing a token reads a decoder's weights once, whatever they are multiplied by. What lies above this floor goes into
products of many positions, into waiting for kernels to be launched, or into Python.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

_RUNS = 7


def floors(networks: Sequence[nn.Module], arms: Mapping[str, Callable[[], None]]) -> dict[str, float]:
    """Runs every arm once and returns its floor, in seconds.

    Args:
        networks: what the arms compute with; two of the same weights count as what they are, two.
        arms: what is run, by name.
    """
    per_second = bytes_per_second(networks[0])
    return {arm: weight_bytes(networks, run) / per_second for arm, run in arms.items()}


def weight_bytes(networks: Sequence[nn.Module], run: Callable[[], None]) -> int:
    """Returns how many bytes of weights a run reads; an embedding's rows are as good as none.

    Args:
        networks: what the run computes with.
        run: is run once.
    """
    num_bytes = 0

    def count(module: nn.Module, inputs: Any) -> None:
        nonlocal num_bytes
        num_bytes += sum(weight.nbytes for weight in module.parameters(recurse=False))

    layers = [layer for network in networks for layer in network.modules() if not isinstance(layer, nn.Embedding)]
    hooks = [layer.register_forward_pre_hook(count) for layer in layers]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return num_bytes


def bytes_per_second(network: nn.Module) -> float:
    """Measures how fast memory of a network's size and device is read: a small one stays in the processor's cache."""
    weights = list(network.parameters())
    num_bytes = sum(weight.nbytes for weight in weights)
    memory = torch.ones(num_bytes // 4, device=weights[0].device)
    seconds = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        float(memory.sum())  # waits for an accelerator, too
        seconds.append(time.perf_counter() - start)
    return num_bytes / statistics.median(seconds)
