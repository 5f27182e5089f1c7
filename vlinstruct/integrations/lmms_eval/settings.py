"""What `--model_args` may say, checked before a model is loaded. No torch.

lmms-eval turns each value into a truth value, a number or a text, whichever it looks like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, cast

from vlinstruct.errors import UsageError
from vlinstruct.settings import GenerationSettings, OptimizationSettings, Quantization, Select

_MAX_BATCH_SIZE = 1024
_WHAT = "cannot use --model_args"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The model, and how it answers.

    Args:
        pretrained: a backbone's name, a folder or a hub id; `$VLINSTRUCT_BACKBONE` or mini if empty.
        adapter: trained alignment layers: a folder, a hub id or a shipped name; none if empty.
        device: as `vlinstruct.load` takes it; with several processes each has a GPU of its own.
        dtype: auto, float32, bfloat16 or float16.
        quantize: 8bit or 4bit; empty is neither.
        offline: use what is cached, open no connection.
        batch_size: documents that go through the model together, 1 to 1024.
        optimize: run algorithm 2 on every filled-in instruction, and ask what it chooses.
        select: how it chooses: safe or paper.
        max_new_tokens: most tokens of an answer where the task does not say, 1 to 4096.
        seed: of the sampling, where a task samples.
    """

    pretrained: str = ""
    adapter: str = ""
    device: str = "auto"
    dtype: str = "auto"
    quantize: str = ""
    offline: bool = False
    batch_size: int = 1
    optimize: bool = False
    select: str = "safe"
    max_new_tokens: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= _MAX_BATCH_SIZE:
            raise UsageError(f"batch_size must be 1 to {_MAX_BATCH_SIZE}, got {self.batch_size}")
        if self.quantize not in ("", "8bit", "4bit"):
            raise UsageError(f"quantize must be 8bit or 4bit, got {self.quantize!r}")
        _ = self.generation, self.optimization  # each checks its own

    @classmethod
    def read(cls, model_args: Mapping[str, object]) -> Self:
        """Reads them.

        Raises:
            UsageError: a name is unknown, or its value is of another kind.
        """
        known = {field.name: type(field.default) for field in fields(cls)}
        unknown = sorted(model_args.keys() - known)
        if unknown:
            raise UsageError(f"{_WHAT} ({', '.join(unknown)}): unknown", advice=f"Known are {', '.join(known)}")
        given: dict[str, Any] = {name: _as(known[name], name, value) for name, value in model_args.items()}
        return cls(**given)

    @property
    def generation(self) -> GenerationSettings:
        """How an answer is generated where the task does not say."""
        return GenerationSettings(max_new_tokens=self.max_new_tokens, seed=self.seed)

    @property
    def optimization(self) -> OptimizationSettings:
        """How an instruction is chosen."""
        return OptimizationSettings(select=cast(Select, self.select))

    @property
    def quantization(self) -> Quantization | None:
        """What `vlinstruct.load` takes."""
        return cast(Quantization, self.quantize) if self.quantize else None


def _as(kind: type, name: str, value: object) -> object:
    """Returns a value as its field wants it; a folder may be called 7, a truth value may not."""
    if kind is str:
        return str(value)
    if kind is int and isinstance(value, str) and value.isdecimal():
        return int(value)
    if type(value) is not kind:
        called = "True or False" if kind is bool else "a whole number"
        raise UsageError(f"{_WHAT} ({name}): it must be {called}, got {value!r}")
    return value
