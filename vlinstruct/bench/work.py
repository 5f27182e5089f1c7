"""What an arm does in a run, counted: what it reads of the weights, passes of the language model, and their positions.

Writing a token reads a decoder's weights once, whatever they are multiplied by: no run is faster than memory is read.
What lies above this floor goes into products of many positions, into waiting for kernels to be launched, or into
Python.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_RUNS = 7
_MOST_BYTES = 4_000_000_000  # far beyond every cache; a large model leaves no room for as much again


@dataclass(frozen=True, kw_only=True)
class Work:
    """What an arm did in a run.

    Args:
        weight_bytes: of weights, as often as it read them; an embedding's rows are as good as none.
        floor_seconds: the time in which so many bytes are read here, the least that it could take.
        num_calls: passes of the language model; an encoder's is one of its own.
        num_tokens: positions that went through these passes, padding included; what is in a cache does not go again.
    """

    weight_bytes: int
    floor_seconds: float
    num_calls: int
    num_tokens: int


def work_of(
    networks: Sequence[nn.Module],
    stacks: Sequence[nn.Module],
    arms: Mapping[str, Callable[[], None]],
    *,
    per_second: float,
) -> dict[str, Work]:
    """Runs every arm once and returns what it did.

    Args:
        networks: what the arms compute with; two of the same weights count as what they are, two.
        stacks: of the language models among these: decoders, and encoders where there are any.
        arms: what is run, by name.
        per_second: how many bytes of memory are read in one (`bytes_per_second`): one figure for all of a table.
    """
    work = {}
    for arm, run in arms.items():
        meter = _Meter(networks, stacks)
        try:
            run()
        finally:
            meter.remove()
        work[arm] = Work(
            weight_bytes=meter.weight_bytes,
            floor_seconds=meter.weight_bytes / per_second,
            num_calls=meter.num_calls,
            num_tokens=meter.num_tokens,
        )
    return work


class _Meter:
    """Counts what goes through networks, from when it is made to when it is removed."""

    def __init__(self, networks: Sequence[nn.Module], stacks: Sequence[nn.Module]) -> None:
        self.weight_bytes = self.num_calls = self.num_tokens = 0
        layers = [layer for network in networks for layer in network.modules() if not isinstance(layer, nn.Embedding)]
        self._hooks = [layer.register_forward_pre_hook(self._count_weights) for layer in layers]
        self._hooks += [stack.register_forward_pre_hook(self._count_positions, with_kwargs=True) for stack in stacks]

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _count_weights(self, layer: nn.Module, inputs: Any) -> None:
        self.weight_bytes += sum(weight.nbytes for weight in layer.parameters(recurse=False))

    def _count_positions(self, stack: nn.Module, inputs: Any, named: Mapping[str, Any]) -> None:
        # transformers passes what it reads by name, as embeddings or as ids, and None for the other; ours comes first.
        read = [*inputs, named.get("inputs_embeds"), named.get("input_ids")]
        rows, positions = next(value for value in read if value is not None).shape[:2]
        self.num_calls += 1
        self.num_tokens += rows * positions


def bytes_per_second(network: nn.Module) -> float:
    """Measures how fast memory of a network's size and device is read: a small one stays in the processor's cache."""
    weights = list(network.parameters())
    num_bytes = min(_MOST_BYTES, sum(weight.nbytes for weight in weights))
    memory = torch.ones(num_bytes // 4, device=weights[0].device)
    seconds = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        float(memory.sum())  # waits for an accelerator, too
        seconds.append(time.perf_counter() - start)
    return num_bytes / statistics.median(seconds)
