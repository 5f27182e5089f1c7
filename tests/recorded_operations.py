"""torch's operations, recorded as a CUDA graph records its kernels: what replays runs on a CPU, too.

A replay runs them on the same memory, without a line of the model's Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Recorder(TorchDispatchMode):
    """Keeps every operation with its arguments and results, whose memory thereby stays theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Any]]] = []

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if operation is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("waits for the device")
        results = operation(*args, **(kwargs or {}))
        self.operations.append((operation, args, kwargs or {}, tree_leaves(results)))
        return results

    def replay(self) -> None:
        for operation, args, kwargs, results in self.operations:
            for kept, again in zip(results, tree_leaves(operation(*args, **kwargs)), strict=True):
                # Views, and what was written in place, lie there already.
                if isinstance(kept, Tensor) and kept.data_ptr() != again.data_ptr():
                    kept.copy_(again)


class NoCopies(TorchFunctionMode):
    """Refuses tensors of Python's numbers, which would be copied to a device: nothing that is recorded may do so."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in (torch.tensor, torch.as_tensor, torch.from_numpy):
            raise RuntimeError("copies to the device")
        return function(*args, **(kwargs or {}))


def record(compute: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Records a computation's operations."""
    compute(*inputs)
    with NoCopies(), Recorder() as recorder:
        output = compute(*inputs)
    return recorder.replay, output
