"""Kernels recorded at the first use of a shape and replayed after: an accelerator no longer waits for Python.

A small batch of a large model spends its time in launching kernels: on an H200 an answer of FlanT5-XL's shapes took
0.33 s, where reading its weights takes some milliseconds. A replay runs the same kernels on the same memory every time,
so what is read and written on lies in memory that never moves, one text's at a time.

Source: CUDA graphs (torch.cuda.CUDAGraph).
"""

from __future__ import annotations

import logging
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from vlinstruct.errors import InputError
from vlinstruct.settings import Quantization

M = TypeVar("M")

# What a recording is made of: a computation and its inputs, which never move; it returns what computes anew, and its
# output, which never moves either.
Record = Callable[[Callable[..., Tensor], Sequence[Tensor]], tuple[Callable[[], None], Tensor]]

MAX_ROWS = 8  # beyond, kernels take longer than their launch
_MAX_RECORDINGS = 128
_MAX_MEMORIES = 16  # of a text of Vicuna-7B some 150 MB each
_MAX_DIFFERENCE = 0.05  # in standard deviations; bfloat16 rounds by 0.004
DIFFERS = "what is replayed differs from what is computed"

_log = logging.getLogger(__name__)


def record_on_cuda(compute: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Records what a computation launches on its inputs' device.

    Raises:
        RuntimeError: it waits for the device, or a kernel of it cannot be recorded.
    """
    # Once aside: libraries choose kernels and caches are filled in the first run, which must not be recorded.
    with torch.cuda.device(inputs[0].device):
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            compute(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # In memory of its own, since an output is read after other recordings ran. Other threads may go on meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            output = compute(*inputs)
        return graph.replay, output


@dataclass(frozen=True, kw_only=True)
class _Recording:
    inputs: tuple[Tensor, ...]
    replay: Callable[[], None]
    output: Tensor


_Kept = OrderedDict[Hashable, _Recording]


class Recordings:
    """The recordings of one model, the least recently used ones dropped first.

    Args:
        record: how a computation is recorded.
    """

    def __init__(self, record: Record = record_on_cuda) -> None:
        self.record = record
        self.is_broken = False  # after a first failure everything runs as if there were no recordings
        self.num_replays = 0
        self._kept: _Kept = OrderedDict()
        self._memories: OrderedDict[Hashable, TextMemory[Any]] = OrderedDict()

    def run(self, what: str, compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Computes, by a recording where the batch is small.

        Args:
            what: tells computations apart.
            compute: a function of its inputs' numbers, and of weights, alone.
            inputs: B rows each.
        """
        output = None
        if not self.is_broken and len(inputs[0]) <= MAX_ROWS:
            output = self.replayed(self._kept, what, compute, *inputs)
        return compute(*inputs) if output is None else output.clone()

    def replayed(self, kept: _Kept, what: str, compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor | None:
        """Returns the output of a replay, which the next one overwrites; None where nothing can be recorded."""
        key = (what, *((given.shape, given.dtype) for given in inputs))
        if key in kept:
            kept.move_to_end(key)
            for own, given in zip(kept[key].inputs, inputs, strict=True):
                own.copy_(given)
        elif not self._record(kept, key, compute, inputs):
            return None
        kept[key].replay()
        self.num_replays += 1
        return kept[key].output

    def _record(
        self, kept: _Kept, key: tuple[Hashable, ...], compute: Callable[..., Tensor], inputs: Sequence[Tensor]
    ) -> bool:
        if self.is_broken:
            return False
        began, own_inputs = time.perf_counter(), tuple(given.clone() for given in inputs)
        try:
            replay, output = self.record(compute, own_inputs)
        except RuntimeError as error:
            self.give_up((str(error).splitlines() or [type(error).__name__])[0])
            return False
        expected = compute(*own_inputs)
        replay()
        if not are_alike(output, expected):
            self.give_up(DIFFERS)
            return False
        shapes = ", ".join("x".join(map(str, given.shape)) for given in inputs)
        _log.info("recorded %s of %s in %.1f s", key[0], shapes, time.perf_counter() - began)
        kept[key] = _Recording(inputs=own_inputs, replay=replay, output=output)
        while len(kept) > _MAX_RECORDINGS:
            kept.popitem(last=False)
        return True

    def give_up(self, why: str) -> None:
        """Records nothing more, and says so: everything is computed anew from now on."""
        if not self.is_broken:
            self.is_broken = True
            _log.warning("no CUDA graphs: %s. Answers are the same, and take as long as without", why)

    def memory(self, key: Hashable, make: Callable[[], M]) -> TextMemory[M] | None:
        """Returns memory for a text of some shape; None where another text is being written in the only one.

        Args:
            key: of the shape.
            make: makes the memory at its first use.
        """
        if key not in self._memories:
            self._memories[key] = TextMemory(make())
            while len(self._memories) > _MAX_MEMORIES:
                self._memories.popitem(last=False)
        self._memories.move_to_end(key)
        memory: TextMemory[M] = self._memories[key]
        return None if memory.is_in_use else memory


class TextMemory(Generic[M]):
    """What one text at a time is written in, and the recordings that read and write there.

    Args:
        content: never moves.
    """

    def __init__(self, content: M) -> None:
        self.content = content
        self.recordings: _Kept = OrderedDict()
        self._user: Callable[[], object | None] = lambda: None

    @property
    def is_in_use(self) -> bool:
        """Whether somebody's text is being written."""
        return self._user() is not None

    def belong_to(self, user: object) -> None:
        """Keeps it for a text, as long as `user` lives."""
        self._user = weakref.ref(user)


def are_alike(replayed: Tensor, computed: Tensor) -> bool:
    """Says whether two differ by their sums' order alone; a wrong position or mask moves them by as much as they vary.

    >>> are_alike(torch.tensor([1.0, 5.01]), torch.tensor([1.0, 5.0])), are_alike(torch.zeros(2), torch.arange(2.0))
    (True, False)
    """
    spread = computed.float().std()
    # Where nothing varies, as zeros do not, nothing may differ.
    return bool((replayed.float() - computed.float()).abs().mean() <= _MAX_DIFFERENCE * spread)


def require_cuda_graphs(device: torch.device, quantize: Quantization | None) -> None:
    """Makes sure that kernels can be recorded.

    Raises:
        InputError: it is no CUDA device, or the layers are quantized, whose kernels wait for the device.
    """
    if device.type != "cuda":
        raise InputError.at("cannot use --cuda-graphs", str(device), "no CUDA device", "Leave it out")
    if quantize is not None:
        why = "kernels of quantized layers cannot be recorded"
        raise InputError.at("cannot use --cuda-graphs", f"--quantize {quantize}", why, "Leave one of the two out")


def recordings_on_one_device(name: str, *, is_spread: bool) -> Recordings:
    """Returns recordings of a loaded model, and says what that means.

    Raises:
        InputError: parts of it lie on other devices.
    """
    if is_spread:
        why = "parts of the model lie on other devices, and what moves between them cannot be recorded"
        raise InputError.at("cannot use --cuda-graphs", name, why, "Leave it out")
    _log.warning("kernels are recorded at the first use of a shape: the first answers take longer, later ones do not")
    return Recordings()
