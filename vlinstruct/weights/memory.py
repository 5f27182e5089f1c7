"""Does a model fit into memory, and what would make it fit: from names and shapes alone, before anything is loaded.

Only linear layers are stored in fewer bits, and which of them, a kind of model says itself (`Quantizable`); everything
else keeps its precision. The answer comes before a tensor is read: a system that runs out of memory kills the process
without a message. No torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlinstruct.errors import ResourceError
from vlinstruct.settings import Quantization
from vlinstruct.weights.safetensors_files import header, shards

_MEMINFO = Path("/proc/meminfo")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
_GB = 10**9
# Bytes per number, scales included: one float32 per row of thousands, and per block of 64 numbers.
_QUANTIZED_BYTES: Mapping[Quantization, float] = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}
# What may be tried, the least loss of precision first: what is typed, bytes per number, quantization.
_REMEDIES: Sequence[tuple[str, int | None, Quantization | None]] = (
    ("--dtype bfloat16", 2, None),
    ("--quantize 8bit", None, "8bit"),
    ("--quantize 8bit --dtype bfloat16", 2, "8bit"),
    ("--quantize 4bit", None, "4bit"),
    ("--quantize 4bit --dtype bfloat16", 2, "4bit"),
)


@dataclass(frozen=True, kw_only=True)
class Quantizable:
    """Which tensors are stored in fewer bits: the matrices of linear layers in one part of a model.

    Args:
        part: its name.
        kept: of modules in it whose matrices keep their precision, e.g. embeddings and the head.
        kept_in_8bit: of those that keep it in 8 bits alone.
    """

    part: str
    kept: tuple[str, ...] = ()
    kept_in_8bit: tuple[str, ...] = ()

    def includes(self, name: str, shape: Sequence[int], quantize: Quantization | None = None) -> bool:
        """Says whether a tensor is stored in so many bits; in any number of them if None.

        >>> blocks = Quantizable(part="language_model", kept=("lm_head",), kept_in_8bit=("wo",))
        >>> [blocks.includes(f"language_model.{name}.weight", (8, 4)) for name in ("0.q", "0.wo", "lm_head")]
        [True, True, False]
        >>> blocks.includes("language_model.0.wo.weight", (8, 4), "8bit"), blocks.includes("qformer.q.weight", (8, 4))
        (False, False)
        """
        first, *modules = name.removesuffix(".weight").split(".")
        if not name.endswith(".weight") or len(shape) != 2 or first != self.part or not modules:
            return False
        is_kept = any(module in self.kept for module in modules)
        return not is_kept and not (quantize == "8bit" and modules[-1] in self.kept_in_8bit)


@dataclass(frozen=True, kw_only=True)
class WeightCount:
    """The numbers of a model.

    Args:
        parts: by part, `vision_model`, `qformer`, ..., all of them.
        quantizable: those that may be stored in fewer bits.
        only_4bit: those of them that 8 bits leave as they are.
    """

    parts: Mapping[str, int]
    quantizable: int
    only_4bit: int = 0

    @property
    def total(self) -> int:
        """The numbers of all parts together."""
        return sum(self.parts.values())

    def num_bytes(self, itemsize: int, quantize: Quantization | None = None) -> int:
        """Returns what they take.

        Args:
            itemsize: bytes of a number in the dtype that is computed in.
            quantize: how what can be quantized is.

        >>> count = WeightCount(parts={"language_model": 100}, quantizable=80)
        >>> count.num_bytes(2), count.num_bytes(2, "8bit"), count.num_bytes(2, "4bit")
        (200, 120, 85)
        """
        if quantize is None:
            return self.total * itemsize
        quantized = self.quantizable - (self.only_4bit if quantize == "8bit" else 0)
        return (self.total - quantized) * itemsize + math.ceil(quantized * _QUANTIZED_BYTES[quantize])


def count_weights(shapes: Iterable[tuple[str, Sequence[int]]], quantizable: Quantizable) -> WeightCount:
    """Counts tensors by name and shape."""
    parts: dict[str, int] = {}
    num_quantizable = only_4bit = 0
    for name, shape in shapes:
        size, part = math.prod(shape), name.partition(".")[0]
        parts[part] = parts.get(part, 0) + size
        if quantizable.includes(name, shape):
            num_quantizable += size
            only_4bit += 0 if quantizable.includes(name, shape, "8bit") else size
    return WeightCount(parts=parts, quantizable=num_quantizable, only_4bit=only_4bit)


def stored_shapes(folder: Path) -> list[tuple[str, Sequence[int]]]:
    """Returns the names and shapes of a folder's tensors, from the files' headers, in the files' order.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    entries = [pair for path in shards(folder) for pair in header(path).items() if pair[0] != "__metadata__"]
    return [(name, values["shape"]) for name, values in entries]


def require_memory(
    weights: WeightCount,
    name: object,
    *,
    itemsize: int,
    quantize: Quantization | None = None,
    available: int | None,
    working: int = 0,
) -> None:
    """Refuses a model that is larger than the memory that is free.

    Args:
        weights: its numbers.
        name: what to call it.
        itemsize: bytes of a number in the dtype that it computes in, e.g. 4 for float32.
        quantize: how its language model is quantized.
        available: bytes that are free; None where the system does not tell: then nothing is refused.
        working: bytes that it takes while it computes.

    Raises:
        ResourceError: it does not fit; says what would.
    """
    needed = weights.num_bytes(itemsize, quantize)
    if available is None or needed + working <= available:
        return
    takes = f"its weights take {needed / _GB:.1f} GB"
    if needed <= available:
        takes += f" and what it computes with {working / _GB:.1f} GB"
    why = f"{takes}, {available / _GB:.1f} GB of memory are free"
    fits = remedies(weights, itemsize=itemsize, quantize=quantize, available=available - working)
    advice = f"Use {' or '.join(fits)}" if fits else "Close other programs, or use a smaller --backbone"
    raise ResourceError.at("cannot load model", name, why, advice, code="out_of_memory")


def remedies(weights: WeightCount, *, itemsize: int, quantize: Quantization | None, available: int) -> list[str]:
    """Returns the options that would make a model fit, at most two, the most precise first.

    >>> weights = WeightCount(parts={"language_model": 100}, quantizable=100)
    >>> remedies(weights, itemsize=4, quantize=None, available=210)
    ['--dtype bfloat16 (0.0 GB)', '--quantize 8bit (0.0 GB)']
    """
    current_bytes, options = weights.num_bytes(itemsize, quantize), []
    for option, option_itemsize, quantized in _REMEDIES:
        size = weights.num_bytes(itemsize if option_itemsize is None else min(option_itemsize, itemsize), quantized)
        if size <= available and size < current_bytes:
            options.append(f"{option} ({size / _GB:.1f} GB)")
    return options[:2]


def available_bytes() -> int | None:
    """Returns the memory that can be had without swapping, within a container's limit; None where nobody tells."""
    rooms = [room for room in (_of_the_system(), *_of_the_container()) if room is not None]
    return min(rooms, default=None)


def _of_the_system() -> int | None:
    try:
        # Linux counts its file cache as available; the page count of sysconf does not.
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows, macOS
        return None


def _of_the_container() -> list[int]:
    """Returns what this process's control group and those above it leave of their limits (Linux; cgroups 1 and 2)."""
    try:
        lines = _OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    rooms = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        is_v2 = not controllers
        if not is_v2 and "memory" not in controllers.split(","):
            continue
        root = _CGROUPS if is_v2 else _CGROUPS / "memory"
        own = root / path.lstrip("/")
        # A container often sees its own group as the root, and in the path what it is called outside.
        for folder in {own, *own.parents, root}:
            limit, used = ("max", "current") if is_v2 else ("limit_in_bytes", "usage_in_bytes")
            try:
                room = int((folder / f"memory.{limit}").read_text()) - int((folder / f"memory.{used}").read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                cached = [int(stat[f"{'' if is_v2 else 'total_'}{kind}_file"]) for kind in ("active", "inactive")]
            except (OSError, ValueError, KeyError):  # no group, no limit ("max"), not readable
                continue
            rooms.append(max(0, room + sum(cached)))  # files that were read are dropped where memory is wanted
    return rooms
