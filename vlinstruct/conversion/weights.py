"""Weights on their way from files to a file, in pieces: no tensor is ever whole in memory.

A source's tensors are views of a mapped file; what is made of several tensors (a fused bias, a longer table, merged
LoRA) is made piece by piece while it is written.

Legend: V rows of a table, r the rank of LoRA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from vlinstruct.errors import CheckpointError

DTYPES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}
"""What weights may be, with safetensors' name for it. No integers; float8 means nothing without its scales."""

_PIECE_BYTES = 2**20  # of a source; small beside any model, large beside what a call costs


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A tensor that is read when it is written.

    Args:
        shape: of the whole.
        dtype: as its numbers are stored.
        pieces: gives the numbers in order, cut along the first dimension.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    pieces: Callable[[], Iterator[Tensor]]


def stored(tensor: Tensor) -> Weight:
    """Returns a tensor, e.g. a view of a mapped file, as a weight.

    >>> stored(torch.zeros(2, 3)).shape
    (2, 3)
    """
    tensor = tensor.detach()
    return Weight(shape=tuple(tensor.shape), dtype=tensor.dtype, pieces=lambda: iter(_split(tensor)))


def _split(tensor: Tensor) -> Sequence[Tensor]:
    whole = tensor.reshape(1) if tensor.ndim == 0 else tensor
    row_bytes = whole.numel() // max(len(whole), 1) * whole.itemsize
    return torch.split(whole, max(_PIECE_BYTES // max(row_bytes, 1), 1))


def as_dtype(weight: Weight, dtype: torch.dtype | None) -> Weight:
    """Returns a weight whose numbers are rounded to a type when they are read; itself if None."""
    if dtype is None or dtype == weight.dtype:
        return weight
    return Weight(shape=weight.shape, dtype=dtype, pieces=lambda: (piece.to(dtype) for piece in weight.pieces()))


def joined(*weights: Weight) -> Weight:
    """Returns weights that differ in their first dimension only as one, in order, of the widest of their types."""

    def pieces() -> Iterator[Tensor]:
        for weight in weights:
            yield from (piece.to(dtype) for piece in weight.pieces())

    dtype = reduce(torch.promote_types, (weight.dtype for weight in weights))
    length = sum(weight.shape[0] for weight in weights)
    return Weight(shape=(length, *weights[0].shape[1:]), dtype=dtype, pieces=pieces)


def with_mean_rows(table: Weight, num_rows: int) -> Weight:
    """Returns a table (V, L) with more rows, each the mean of its own.

    In a head a row of zeros has the logit 0, which may well be the largest; the mean of all logits never is.

    Args:
        table: an embedding or a head.
        num_rows: how many rows to add.
    """

    def pieces() -> Iterator[Tensor]:
        summed = torch.zeros(table.shape[1], dtype=torch.float64)
        for piece in table.pieces():
            summed += piece.double().sum(dim=0)
            yield piece
        yield (summed / table.shape[0]).to(table.dtype).expand(num_rows, -1)

    return Weight(shape=(table.shape[0] + num_rows, *table.shape[1:]), dtype=table.dtype, pieces=pieces)


def plus_low_rank(weight: Weight, lora_a: Tensor, lora_b: Tensor, scale: float, *, dtype: torch.dtype) -> Weight:
    """Returns W + scale * B A, computed in float32 or wider (Hu et al., 2021, section 4.1).

    Args:
        weight: W, (out, in).
        lora_a: (r, in).
        lora_b: (out, r).
        scale: alpha / r.
        dtype: of the result; the sum is rounded to it once.
    """

    def pieces() -> Iterator[Tensor]:
        start = 0
        for piece in weight.pieces():
            rows = lora_b[start : start + len(piece)].to(wide)
            yield (piece.to(wide) + scale * (rows @ lora_a.to(wide))).to(dtype)
            start += len(piece)

    wide = torch.promote_types(weight.dtype, torch.float32)
    return Weight(shape=weight.shape, dtype=dtype, pieces=pieces)


def num_bytes(weight: Weight) -> int:
    """Returns what its numbers take.

    >>> num_bytes(stored(torch.zeros(2, 3)))
    24
    """
    return torch.Size(weight.shape).numel() * weight.dtype.itemsize


def whole(weight: Weight) -> Tensor:
    """Returns a weight as one tensor; for small ones."""
    return torch.cat(list(weight.pieces())).reshape(weight.shape)


def is_finite(weight: Weight) -> bool:
    """Says whether none of its numbers is NaN or infinite; reads all of them."""
    return all(bool(piece.isfinite().all()) for piece in weight.pieces())


def require_floating(weights: Mapping[str, Weight], where: str) -> None:
    """Refuses types that no weight has.

    Raises:
        CheckpointError: with the first five tensors of another type and their count.
    """
    others = [f"{name} {str(weight.dtype)[6:]}" for name, weight in weights.items() if weight.dtype not in DTYPES]
    if others:
        raise CheckpointError(
            f"{len(others)} tensors in {where} are no float64, float32, float16 or bfloat16 ({listed(others)}): other "
            "numbers are never converted silently."
        )


def require_finite(names: Sequence[str], where: str) -> None:
    """Refuses numbers that nothing can be computed with.

    Args:
        names: of the tensors that have some.
        where: their file or folder.

    Raises:
        CheckpointError: with the first five of them and their count.
    """
    if names:
        raise CheckpointError(
            f"{len(names)} tensors in {where} hold NaN or infinity ({listed(names)})",
            advice="Nothing was written; --keep-nonfinite writes them all the same.",
        )


def listed(names: Sequence[str]) -> str:
    """Returns the first five names.

    >>> listed(["a", "b"]), listed(list("abcdefg"))
    ('a, b', 'a, b, c, d, e, ...')
    """
    return ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])])
