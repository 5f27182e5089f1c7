"""How many numbers a model has, and what they take in a dtype, quantized or not: from names and shapes alone. No torch.

Only the linear layers of the language model's blocks are quantized; the vision tower, the Q-Former, the projection, the
embeddings and the head keep their precision. T5's `wo` keeps it in 8 bits, too: what it reads goes through float16
there, and FlanT5's is too large for that (as in transformers, `_keep_in_fp32_modules`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlinstruct.errors import CheckpointError
from vlinstruct.settings import Quantization
from vlinstruct.weights.safetensors_files import header, shards

# Bytes per number, scales included: one float32 per row of thousands, and per block of 64 numbers.
_QUANTIZED_BYTES: Mapping[Quantization, float] = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}
_KEPT = ("shared", "embed_tokens", "lm_head", "relative_attention_bias")
_LANGUAGE_MODEL = "language_model."
_ONLY_4BIT = ".wo.weight"


@dataclass(frozen=True, kw_only=True)
class WeightCount:
    """The numbers of a model.

    Args:
        parts: by part, `vision_model`, `qformer`, ..., all of them.
        quantizable: those of the linear layers of the language model's blocks.
        only_4bit: those of them that 8 bits leave as they are.
    """

    parts: Mapping[str, int]
    quantizable: int
    only_4bit: int = 0

    @property
    def total(self) -> int:
        """All numbers."""
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


def is_quantizable(name: str, shape: Sequence[int]) -> bool:
    """Says whether a tensor is the matrix of a linear layer in the language model's blocks.

    >>> is_quantizable("language_model.model.layers.0.mlp.up_proj.weight", (8, 4))
    True
    >>> is_quantizable("language_model.lm_head.weight", (8, 4)), is_quantizable("qformer.x.weight", (8, 4))
    (False, False)
    """
    is_matrix = name.endswith(".weight") and len(shape) == 2
    return is_matrix and name.startswith(_LANGUAGE_MODEL) and not any(part in _KEPT for part in name.split("."))


def is_quantized(name: str, shape: Sequence[int], quantize: Quantization) -> bool:
    """Says whether a tensor is stored in so many bits.

    >>> name = "language_model.encoder.block.0.layer.1.DenseReluDense.wo.weight"
    >>> is_quantized(name, (8, 4), "8bit"), is_quantized(name, (8, 4), "4bit")
    (False, True)
    """
    return is_quantizable(name, shape) and not (quantize == "8bit" and name.endswith(_ONLY_4BIT))


def count_weights(shapes: Iterable[tuple[str, Sequence[int]]]) -> WeightCount:
    """Counts tensors by name and shape."""
    parts: dict[str, int] = {}
    quantizable = only_4bit = 0
    for name, shape in shapes:
        numbers, part = math.prod(shape), name.partition(".")[0]
        parts[part] = parts.get(part, 0) + numbers
        if is_quantizable(name, shape):
            quantizable += numbers
            only_4bit += 0 if is_quantized(name, shape, "8bit") else numbers
    return WeightCount(parts=parts, quantizable=quantizable, only_4bit=only_4bit)


def weights_of(folder: Path) -> WeightCount:
    """Counts the numbers in a folder's tensors, from the files' headers.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    try:
        return count_weights(
            (name, values["shape"])
            for path in shards(folder)
            for name, values in header(path).items()
            if name != "__metadata__"
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"the safetensors header in {folder} is damaged", advice="Download or copy it again."
        ) from error
