"""Computations recorded at the first use of a shape and replayed after: none of the model's Python runs again.

A small batch waits for Python. On an H200 an answer of FlanT5-XL's shapes took 0.33 s, where reading its weights takes
some milliseconds; on two cores a token takes mini's decoder 1.3 ms, compiled 0.5. So a GPU replays the kernels that
were launched, and a CPU runs its operations compiled into one function. Either does the same on the same memory every
time, so what is read and written on lies in memory that never moves, one text's at a time.

Source: CUDA graphs (torch.cuda.CUDAGraph), TorchInductor (torch.compile).
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from vlinstruct.errors import InputError, ResourceError
from vlinstruct.settings import Quantization

M = TypeVar("M")

# What a recording is made of: a computation and its inputs, which never move; it returns what computes anew, and its
# output, which never moves either.
Record = Callable[[Callable[..., Tensor], Sequence[Tensor]], tuple[Callable[[], None], Tensor]]

MAX_ROWS = 8  # on a GPU: beyond, kernels take longer than their launch
# On a CPU, where a shape costs seconds: those of one picture, whose two instructions are scored together.
MAX_ROWS_COMPILED = 2
_MAX_RECORDINGS = 64
_MAX_BYTES = 2 * 1024**3  # of memory for texts; one of Vicuna-7B takes some 150 MB
_MAX_COPIED = 64 * 10**6  # bytes of weights that a compiled function copies
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


def compile_on_cpu(compute: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Compiles a computation into one function.

    Its operations are traced first, as a GPU would launch them: what the model's Python looked at, how much was read
    for instance, is neither compiled nor checked before every call.

    Raises:
        RuntimeError: it looks at numbers, or there is no compiler for C++.
        OSError: what is compiled cannot be written.
    """
    # Not in /tmp, where torch would keep and look for it: there somebody else may have put what it then runs.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlinstruct" / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    # A tenth of a second, which only who compiles waits for.
    from torch.fx import GraphModule, Node
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.graph import CodeGen

    traced = make_fx(lambda given: compute(*given))(list(inputs))
    traced.graph.set_codegen(CodeGen())  # takes and returns a flat list, not the lists of the line above
    # Weights stay constants, so that products can read them in oneDNN's order. All else that lies there is read and
    # written on: it becomes an input.
    placeholders: dict[str, Node] = {}
    first = next(iter(traced.graph.nodes))
    for node in traced.graph.find_nodes(op="get_attr"):
        if isinstance(getattr(traced, node.target), nn.Parameter):
            continue
        if node.target not in placeholders:
            with traced.graph.inserting_before(first):
                placeholders[node.target] = traced.graph.placeholder(node.target)
        node.replace_all_uses_with(placeholders[node.target])
        traced.graph.erase_node(node)
    traced.recompile()
    options: dict[str, str | int | bool | Callable[..., Any]] = {
        "freezing": sum(weight.nbytes for weight in traced.parameters()) <= _MAX_COPIED,
        "cpp_wrapper": True,  # what calls the products is C++, too
        "fx_graph_cache": False,  # it is made of pickles; what a compiler made of a source is kept anyway
    }
    calls: list[Callable[[], Sequence[Tensor]]] = []

    def compile_graph(graph: GraphModule, examples: list[Any]) -> Callable[..., Sequence[Tensor]]:
        run = torch._inductor.compile(graph, examples, options=options)

        def call(*given: Tensor) -> Sequence[Tensor]:
            calls.append(partial(run, *given))
            return run(*given)

        return call

    compiled = torch.compile(traced, backend=compile_graph, fullgraph=True, dynamic=False)
    output = compiled(*(getattr(traced, name) for name in placeholders), *inputs)[0].clone()
    # What torch.compile calls, without its checks that nothing has moved, 0.2 ms every time: nothing does.
    (call,) = calls
    return lambda: output.copy_(call()[0]), output


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
        max_rows: B, the most of which a batch is computed by a recording.
    """

    def __init__(self, record: Record, max_rows: int = MAX_ROWS) -> None:
        self.record = record
        self.max_rows = max_rows
        self.is_broken = False  # after a first failure everything runs as if there were no recordings
        self.num_replays = 0
        self._kept: _Kept = OrderedDict()
        self._slots: OrderedDict[Hashable, _Slot[Any]] = OrderedDict()
        self._lock = threading.RLock()

    def takes(self, num_rows: int) -> bool:
        """Says whether a batch of so many rows is computed by a recording."""
        return not self.is_broken and num_rows <= self.max_rows

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
        except (RuntimeError, OSError) as error:
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
                _log.warning("--compile: %s. Answers are the same, and take as long as without it", why)
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


def require_compilation(device: torch.device, quantize: Quantization | None) -> None:
    """Makes sure that what runs on a device can be recorded or compiled.

    Raises:
        InputError: it is neither a CUDA device nor a CPU, or the layers are quantized, whose
            kernels wait for the device.
        ResourceError: there is no compiler for C++.
    """
    what = "cannot use --compile"
    if device.type not in ("cuda", "cpu"):
        raise InputError.at(what, str(device), "neither a CUDA device nor a CPU", "Leave it out")
    if quantize is not None:
        why = "kernels of quantized layers can be neither recorded nor compiled"
        raise InputError.at(what, f"--quantize {quantize}", why, "Leave one of the two out")
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")  # as TorchInductor looks for it
    if device.type == "cpu" and sys.platform != "win32" and shutil.which(compiler) is None:
        advice = "Install one (Debian: apt install g++ python3-dev), or leave it out"
        raise ResourceError.at(what, str(device), f"there is no compiler for C++ ({compiler})", advice)


def recordings_on(
    device: torch.device, name: str, *, is_spread: bool = False, is_prepacked: bool = False
) -> Recordings | None:
    """Returns recordings of a loaded model, and says what that means; None where they would gain nothing.

    Args:
        device: where it is.
        name: of the model.
        is_spread: whether parts of it are elsewhere.
        is_prepacked: whether its products read copies of weights (`instructblip/prepacked.py`). Compiled ones would
            read the weights themselves, which costs a model of that size more than Python does.

    Raises:
        InputError: they are.
    """
    if is_spread:
        why = "parts of the model lie on other devices, and what moves between them cannot be recorded"
        raise InputError.at("cannot use --compile", name, why, "Leave it out")
    if device.type == "cuda":
        _log.warning(
            "kernels are recorded at the first use of a shape: the first answers take longer, later ones do not"
        )
        return Recordings(record_on_cuda)
    if is_prepacked:
        _log.warning("--compile is left out: on a CPU a model of this size is as fast without")
        return None
    _log.warning("every shape is compiled at its first use, some seconds each: the first answers take minutes")
    return Recordings(compile_on_cpu, MAX_ROWS_COMPILED)
