"""Reads a model's tensors from safetensors, memory-mapped, one file or many shards. Never a pickle.

Legend: a shard is one safetensors file; its header is JSON that tells every tensor's dtype, shape and place.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlinstruct.errors import CheckpointError, shortened
from vlinstruct.files import read_json_object

if TYPE_CHECKING:
    from torch import Tensor

INDEX_FILE = "model.safetensors.index.json"
# What other programs load; by the end of the name.
_OTHER_FORMATS: Mapping[str, str] = {
    ".gguf": "GGUF, llama.cpp's quantized format",
    ".bin": "PyTorch's pickles",
    ".pth": "PyTorch's pickles (.pth: vlinstruct convert reads LAVIS's)",
    ".h5": "TensorFlow's weights",
    ".msgpack": "Flax's weights",
    ".onnx": "ONNX",
}
_MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
_MAX_TENSORS = 20_000  # the largest model of this family has 1,400; 200,000 of no size would take 10 s


def shards(folder: Path) -> list[Path]:
    """Returns the folder's safetensors files in a stable order.

    Raises:
        CheckpointError: there is none, or a shard that the index names is missing or lies elsewhere.
    """
    if (folder / INDEX_FILE).exists():
        weight_map = read_json_object(folder / INDEX_FILE).get("weight_map", {})
        if not isinstance(weight_map, dict) or not all(name and isinstance(name, str) for name in weight_map.values()):
            why = "its weight_map does not name a file for each tensor"
            raise CheckpointError(f"{folder}/{INDEX_FILE} is damaged: {why}", advice="Download it again.")
        names = sorted(set(weight_map.values()))
        # A path in an index could lead to any file of the machine.
        if any(Path(name).name != name for name in names):
            raise CheckpointError(
                f"{folder}/{INDEX_FILE} names a file outside of its folder", advice="Download it again."
            )
    else:
        names = ["model.safetensors"]
    # os.path: Path raises where the system refuses a name, as one that is too long.
    missing = [name for name in names if not os.path.isfile(folder / name)]
    if missing or not names:
        kinds = [kind for suffix, kind in _OTHER_FORMATS.items() if any(folder.glob(f"*{suffix}"))]
        instead = f" (it holds {' and '.join(kinds)})" if kinds else ""
        listed = shortened(", ".join(missing[:5]), 100) if missing else "every shard"
        raise CheckpointError(
            f"{listed} is missing in {folder}{instead}: only safetensors are loaded, never .bin or .pth files",
            advice="Download the safetensors files.",
        )
    return [folder / name for name in names]


def tensors(path: Path, device: str = "cpu") -> Iterator[tuple[str, Tensor]]:
    """Yields the names and tensors of one file; on the CPU they are views of the mapped file.

    Raises:
        CheckpointError: the file is damaged or no safetensors file, or what `header` refuses.
    """
    from safetensors import SafetensorError, safe_open

    try:
        header(path)
        with safe_open(path, framework="pt", device=device) as file:
            for name in file.keys():  # noqa: SIM118 (no mapping, it has nothing but keys())
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is {_what_is_wrong(path)}", advice="Download or copy it again.") from error


def _what_is_wrong(path: Path) -> str:
    return what_it_is_instead(path) or "damaged: not a complete safetensors file"


def what_it_is_instead(path: Path) -> str | None:
    """Recognises what a download leaves in place of a checkpoint; None if it is nothing of that kind."""
    # A clone without Git LFS and a login page leave small files under a checkpoint's name.
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "empty"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself (run git lfs pull)"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page, not a checkpoint"
    return None


def header(path: Path) -> dict[str, Any]:
    """Reads a file's header without its tensors.

    Raises:
        CheckpointError: the file is damaged or no safetensors file, names a tensor twice, or far more than models have.
    """

    # JSON takes a name twice, and which of the two a reader keeps is its own affair.
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise CheckpointError(
                f"{path} is damaged: its header lists a name twice", advice="Download or copy it again."
            )
        return dict(pairs)

    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        content = file.read(size) if 0 < size <= _MAX_HEADER_BYTES else b""
        file_bytes = os.fstat(file.fileno()).st_size
    try:
        values = json.loads(content, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not all(
        _fits(entry, file_bytes) for name, entry in values.items() if name != "__metadata__"
    ):
        raise CheckpointError(f"{path} is {_what_is_wrong(path)}", advice="Download or copy it again.")
    if len(values) > _MAX_TENSORS:
        raise CheckpointError(f"{path} has {len(values):,} tensors: no model of this family has so many.")
    return values


def _fits(entry: object, file_bytes: int) -> bool:
    """Says whether a tensor has a shape, of no more numbers than its file has bits: who counts memory believes it."""
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(shape, list) or not all(isinstance(size, int) and size >= 0 for size in shape):
        return False
    return math.prod(shape) <= file_bytes * 8


def write_tensors(values: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file; neither synced nor atomic by itself.

    Raises:
        OSError: the system does not take it; safetensors puts that into an error of its own.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in values.items()}, path, metadata=metadata)
    # The system's number stands in the message's text alone, and a full disk must be told as one.
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number)) from error
