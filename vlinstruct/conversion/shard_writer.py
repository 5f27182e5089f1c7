"""Writes weights as safetensors files, one piece of a tensor after the other.

safetensors' own writer copies a whole file into memory first. The format is 8 bytes that hold the header's length, the
header (JSON: dtype, shape and place of every tensor), and the numbers.

Source: huggingface.co/docs/safetensors; transformers' names of shards and their index.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from vlinstruct.conversion.weights import DTYPES, Weight, num_bytes
from vlinstruct.weights.safetensors_files import INDEX_FILE

OnShard = Callable[[int, int], None]
"""Is told after each file how many are written, and of how many."""
_HEADER_ALIGNMENT = 8


@dataclass(frozen=True, kw_only=True)
class Shards:
    """What was written.

    Args:
        files: their names, in order.
        not_finite: the tensors that hold NaN or infinity.
    """

    files: tuple[str, ...]
    not_finite: tuple[str, ...]


def write_shards(folder: Path, weights: Mapping[str, Weight], *, max_shard_bytes: int, on_shard: OnShard) -> Shards:
    """Writes a model's weights: one file, or several and their index.

    Args:
        folder: where to; holds none of the files yet.
        weights: by name, in the order in which they are spread over the files.
        max_shard_bytes: most bytes of a file; a tensor that is larger gets a file of its own.
        on_shard: is told how far it is.

    Raises:
        OSError: the system does not take it.
    """
    plan = plan_shards({name: num_bytes(weight) for name, weight in weights.items()}, max_shard_bytes)
    files = [_shard_name(number, len(plan)) for number in range(1, len(plan) + 1)]
    not_finite: list[str] = []
    for number, (file, names) in enumerate(zip(files, plan, strict=True), start=1):
        not_finite += _write_shard(folder / file, {name: weights[name] for name in names})
        on_shard(number, len(plan))
    if len(plan) > 1:
        weight_map = {name: file for file, names in zip(files, plan, strict=True) for name in names}
        index = {"metadata": {"total_size": sum(map(num_bytes, weights.values()))}, "weight_map": weight_map}
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return Shards(files=tuple(files), not_finite=tuple(not_finite))


def plan_shards(sizes: Mapping[str, int], max_bytes: int) -> list[list[str]]:
    """Spreads tensors over files in their order.

    >>> plan_shards({"a": 3, "b": 3, "c": 9, "d": 1}, max_bytes=6)
    [['a', 'b'], ['c'], ['d']]
    """
    plan: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if plan[-1] and filled + size > max_bytes:
            plan.append([])
            filled = 0
        plan[-1].append(name)
        filled += size
    return plan


def _shard_name(number: int, total: int) -> str:
    return "model.safetensors" if total == 1 else f"model-{number:05}-of-{total:05}.safetensors"


def _write_shard(path: Path, weights: Mapping[str, Weight]) -> list[str]:
    """Returns the tensors that are not finite."""
    # The widest types first, as safetensors does it: every tensor is aligned to its own type then.
    ordered = sorted(weights.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    with path.open("xb") as file:
        file.write(_header(ordered))
        return [name for name, weight in ordered if not _write_numbers(file, weight)]


def _header(weights: Sequence[tuple[str, Weight]]) -> bytes:
    values: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, weight in weights:
        start, end = end, end + num_bytes(weight)
        values[name] = {"dtype": DTYPES[weight.dtype], "shape": list(weight.shape), "data_offsets": [start, end]}
    content = json.dumps(values, separators=(",", ":")).encode()
    content += b" " * (-len(content) % _HEADER_ALIGNMENT)
    return len(content).to_bytes(8, "little") + content


def _write_numbers(file: BinaryIO, weight: Weight) -> bool:
    """Returns whether they are finite."""
    start, is_finite = file.tell(), True
    for piece in weight.pieces():
        is_finite = bool(piece.isfinite().all()) and is_finite
        file.write(_raw(piece))
    written, expected = file.tell() - start, num_bytes(weight)
    assert written == expected
    return is_finite


def _raw(numbers: Tensor) -> memoryview:
    return numbers.contiguous().reshape(-1).view(torch.uint8).numpy().data
