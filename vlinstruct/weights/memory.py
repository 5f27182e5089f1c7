"""Says before anything is loaded whether a model fits into memory, and what would make it fit. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vlinstruct.errors import ResourceError
from vlinstruct.settings import Quantization
from vlinstruct.weights.weight_count import WeightCount

_MEMINFO = Path("/proc/meminfo")
_GB = 10**9
# What may be tried, the least loss of precision first: what is typed, bytes per number, quantization.
_REMEDIES: Sequence[tuple[str, int | None, Quantization | None]] = (
    ("--dtype bfloat16", 2, None),
    ("--quantize 8bit", None, "8bit"),
    ("--quantize 8bit --dtype bfloat16", 2, "8bit"),
    ("--quantize 4bit", None, "4bit"),
    ("--quantize 4bit --dtype bfloat16", 2, "4bit"),
)


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
    why = f"its weights take {needed / _GB:.1f} GB, {available / _GB:.1f} GB of memory are free"
    fits = remedies(weights, itemsize=itemsize, quantize=quantize, available=available - working)
    advice = f"Use {' or '.join(fits)}" if fits else "Close other programs, or use a smaller --backbone"
    raise ResourceError.at("cannot load model", name, why, advice, code="out_of_memory")


def remedies(weights: WeightCount, *, itemsize: int, quantize: Quantization | None, available: int) -> list[str]:
    """Returns the options that would make a model fit, at most two, the most precise first.

    >>> weights = WeightCount(parts={"language_model": 100}, quantizable=100)
    >>> remedies(weights, itemsize=4, quantize=None, available=210)
    ['--dtype bfloat16 (0.0 GB)', '--quantize 8bit (0.0 GB)']
    """
    now, found = weights.num_bytes(itemsize, quantize), []
    for typed, other, quantized in _REMEDIES:
        size = weights.num_bytes(itemsize if other is None else min(other, itemsize), quantized)
        if size <= available and size < now:
            found.append(f"{typed} ({size / _GB:.1f} GB)")
    return found[:2]


def available_bytes() -> int | None:
    """Returns the memory that can be had without swapping; None where the system does not tell."""
    try:
        # Linux counts its file cache as available; the page count of sysconf does not.
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return _free_pages()


def _free_pages() -> int | None:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows, macOS
        return None
