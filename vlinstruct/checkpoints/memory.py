"""Says before anything is loaded whether a model fits into memory, from its files' headers. No torch."""

from __future__ import annotations

import math
import os
from pathlib import Path

from vlinstruct.checkpoints.safetensors_files import header, shards
from vlinstruct.data.text import error_line
from vlinstruct.errors import CheckpointError, ResourceError

_MEMINFO = Path("/proc/meminfo")
_GB = 10**9


def require_memory(folder: Path, *, bytes_per_weight: int) -> None:
    """Refuses a model whose weights alone are larger than the memory that is free.

    Args:
        folder: its safetensors files.
        bytes_per_weight: of the dtype that it will compute in, e.g. 4 for float32.

    Raises:
        ResourceError: it does not fit. Where the system does not tell what is free, nothing is refused.
        CheckpointError: a file is missing or damaged.
    """
    needed, available = num_weights(folder) * bytes_per_weight, available_bytes()
    if available is not None and needed > available:
        why = f"its weights take {needed / _GB:.1f} GB, {available / _GB:.1f} GB of memory are free"
        advice = "Close other programs, or use a smaller --backbone or --dtype bfloat16"
        raise ResourceError(error_line("cannot load model", folder, why, advice), code="out_of_memory")


def num_weights(folder: Path) -> int:
    """Counts the numbers in a folder's tensors.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    try:
        tensors = [values for path in shards(folder) for name, values in header(path).items() if name != "__metadata__"]
        return sum(math.prod(values["shape"]) for values in tensors)
    except (AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"the safetensors header in {folder} is damaged. Download or copy it again.") from error


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
