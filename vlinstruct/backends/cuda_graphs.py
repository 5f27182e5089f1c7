"""Kernels recorded at the first use of a shape and replayed after: an accelerator no longer waits for Python.

A small batch of a large model spends its time in launching kernels: on an H200 an answer of FlanT5-XL's shapes took
0.33 s, where reading its weights takes some milliseconds. A replay runs the same kernels on the same memory every time,
so what is read and written on lies in memory that never moves, one text's at a time.

Source: CUDA graphs (torch.cuda.CUDAGraph).
"""

from __future__ import annotations

import logging
import threading
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
_MAX_RECORDINGS = 64
_MAX_BYTES = 2 * 1024**3  # of memory for texts; one of Vicuna-7B takes some 150 MB
_ONE_AT_A_TIME = threading.Lock()  # torch records one graph at a time
_MAX_DIFFERENCE = 0.05  # in standard deviations; bfloat16 rounds by 0.004
DIFFERS = "what is replayed differs from what is computed"

_log = logging.getLogger(__name__)


def record_on_cuda(compute: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Records what a computation launches on its inputs' device.

    Raises:
        RuntimeError: it waits for the device, or a kernel of it cannot be recorded.
    """
    with torch.cuda.device(inputs[0].device), _ONE_AT_A_TIME:
        before, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        # Back to it also where a recording fails, which torch's own way out leaves on the stream of the recording.
        with torch.cuda.stream(before):
            side.wait_stream(before)
            # Once aside: libraries choose kernels and caches are filled in the first run, which must not be recorded.
            with torch.cuda.stream(side):
                compute(*inputs)
            before.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # In memory of its own, since an output is read after other recordings ran, and on a stream of its own
            # device: torch's default one is the first device's. Other threads may go on meanwhile.
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
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
        self._slots: OrderedDict[Hashable, _Slot[Any]] = OrderedDict()
        self._lock = threading.RLock()

    def takes(self, num_rows: int) -> bool:
        """Says whether a batch of so many rows is computed by a recording."""
        return not self.is_broken and num_rows <= MAX_ROWS

    def run(self, what: str, compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Computes, by a recording where the batch is small.

        Args:
            what: tells computations apart.
            compute: a function of its inputs' numbers, and of weights, alone.
            inputs: B rows each.
        """
        output = self.replayed(self._kept, what, compute, *inputs) if self.takes(len(inputs[0])) else None
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
            expected = compute(*own_inputs)
        except RuntimeError as error:
            self.give_up((str(error).splitlines() or [type(error).__name__])[0])
            return False
        output.fill_(torch.nan)  # of a replay that does nothing, nothing is to be left
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
        with self._lock:
            if not self.is_broken:
                self.is_broken = True
                _log.warning("no CUDA graphs: %s. Answers are the same, and take as long as without", why)
            # New ones, not emptied ones: another thread may be replaying, and a text keeps what it is written in.
            self._kept, self._slots = OrderedDict(), OrderedDict()

    def memory(self, key: Hashable, make: Callable[[], M], num_bytes: int) -> TextMemory[M] | None:
        """Returns memory for a text of some shape, the caller's alone as long as it is held.

        Args:
            key: of the shape.
            make: makes the memory at its first use.
            num_bytes: that it takes.

        Returns:
            None where another text is being written in the only one, or it would be too large.
        """
        if num_bytes > _MAX_BYTES or self.is_broken:
            return None
        with self._lock:
            if key not in self._slots:
                try:
                    self._slots[key] = _Slot(make(), num_bytes)
                except RuntimeError as error:  # out of memory
                    self.give_up((str(error).splitlines() or [type(error).__name__])[0])
                    return None
                while sum(slot.num_bytes for slot in self._slots.values()) > _MAX_BYTES:
                    self._slots.popitem(last=False)
            self._slots.move_to_end(key)
            slot = self._slots[key]
            if slot.user() is not None:
                return None
            memory: TextMemory[M] = TextMemory(slot.content, slot.recordings)
            slot.user = weakref.ref(memory)
            return memory


class TextMemory(Generic[M]):
    """What a text is written in, and the recordings that read and write there; another text's once this is let go.

    Args:
        content: never moves.
        recordings: of the content.
    """

    def __init__(self, content: M, recordings: _Kept) -> None:
        self.content = content
        self.recordings = recordings


class _Slot(Generic[M]):
    """The memory of a shape, and who writes in it."""

    def __init__(self, content: M, num_bytes: int) -> None:
        self.content = content
        self.num_bytes = num_bytes
        self.recordings: _Kept = OrderedDict()
        self.user: Callable[[], object | None] = lambda: None


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
