"""What `--model_args` may say, checked before a model is loaded, and what a task's `generation_kwargs` say. No torch.

lmms-eval turns each value of `--model_args` into a truth value, a number or a text, whichever it looks like.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Self, TypeVar, cast

from vlinstruct.errors import UsageError, VlinstructError
from vlinstruct.settings import (
    MAX_NEW_TOKENS,
    GenerationSettings,
    OptimizationSettings,
    Quantization,
    Select,
    ServerSettings,
)

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=VlinstructError)

_MAX_BATCH_SIZE = 1024
_WHAT = "cannot use --model_args"

_NUM_SEEDS = 2**64
_COUNTS = ("max_new_tokens", "num_beams")
_NUMBERS = ("length_penalty", "repetition_penalty")
_OF_SAMPLING = ("temperature", "top_p")
# Tasks are written for many models: what we do not have is named in the log, and ends no run.
_GENERATION_KWARGS = frozenset({*_COUNTS, *_NUMBERS, *_OF_SAMPLING, "do_sample", "until"})
# What errors advise of our own command line, with the value where one stands behind it.
_OPTION = re.compile(
    r"--(backbone|adapter|device|dtype|quantize|image-size|think|offline)\b"
    r"(?: (mini|cpu|float32|bfloat16|float16|8bit|4bit)\b)?"
)


def reworded(error: E, *, of: object = None) -> E:
    """Returns an error whose advice names `--model_args` where our command line has options, and its document.

    Args:
        error: as the package raised it.
        of: what it is about; None where it says that itself.

    >>> reworded(UsageError("too large", advice="Use --dtype bfloat16, or a smaller --backbone")).message
    'too large. Use dtype=bfloat16, or a smaller pretrained'
    """
    problem, advice = (_OPTION.sub(_as_model_arg, text) for text in (error.problem, error.advice))
    head = "" if of is None else f"{of}: "
    return type(error)(head + problem, advice=advice, code=error.code).with_traceback(error.__traceback__)


def _as_model_arg(option: re.Match[str]) -> str:
    name, value = option.groups()
    name = "pretrained" if name == "backbone" else name.replace("-", "_")
    return name if value is None else f"{name}={value}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The model, and how it answers.

    Args:
        pretrained: a backbone's name, a folder, a hub id or a server's URL; `$VLINSTRUCT_BACKBONE` or mini if empty.
        adapter: trained alignment layers: a folder, a hub id or a shipped name; none if empty.
        device: as `vlinstruct.load` takes it; with several processes each has a GPU of its own.
        dtype: auto, float32, bfloat16 or float16.
        quantize: 8bit or 4bit; empty is neither.
        image_size: side in pixels that pictures are read at; 0 is the model's own.
        think: let a model that can think do so before it answers; only its answer counts.
        offline: use what is cached, open no connection.
        served_model: what a server calls the model; its only one if empty.
        concurrency: requests in flight to a server, 1 to 4096.
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
    image_size: int = 0
    think: bool = False
    offline: bool = False
    served_model: str = ""
    concurrency: int = 16
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
        if self.image_size < 0:
            raise UsageError(f"image_size must be 0 or more, got {self.image_size}")
        _ = self.generation, self.optimization, self.server  # each checks its own ranges

    @classmethod
    def read(cls, model_args: Mapping[str, object]) -> Self:
        """Reads what lmms-eval parsed of `--model_args`.

        Args:
            model_args: values by name.

        Raises:
            UsageError: a name is unknown, or its value is of another kind.
        """
        kinds = {field.name: type(field.default) for field in fields(cls)}
        unknown_names = sorted(model_args.keys() - kinds)
        if unknown_names:
            raise UsageError(f"{_WHAT} ({', '.join(unknown_names)}): unknown", advice=f"Known are {', '.join(kinds)}")
        values: dict[str, Any] = {name: _as(kinds[name], name, value) for name, value in model_args.items()}
        return cls(**values)

    @property
    def generation(self) -> GenerationSettings:
        """How an answer is generated where the task does not say."""
        return GenerationSettings(max_new_tokens=self.max_new_tokens, seed=self.seed)

    @property
    def optimization(self) -> OptimizationSettings:
        """How an instruction is chosen."""
        return OptimizationSettings(select=cast(Select, self.select))

    @property
    def server(self) -> ServerSettings:
        """How a server is asked."""
        return ServerSettings(served_model=self.served_model or None, concurrency=self.concurrency)

    @property
    def quantization(self) -> Quantization | None:
        """What `vlinstruct.load` takes."""
        return cast(Quantization, self.quantize) if self.quantize else None


def _as(kind: type, name: str, value: object) -> object:
    """Returns a value as its field wants it.

    lmms-eval turns each value into a truth value, a number or a text, whichever it looks like: a folder called 7 comes
    as a number and is a text again here, where the text "7" as a truth value is refused.
    """
    if kind is str:
        return str(value)
    if kind is int and isinstance(value, str) and value.isdecimal():
        return int(value)
    if type(value) is not kind:
        expected = "True or False" if kind is bool else "a whole number"
        raise UsageError(f"{_WHAT} ({name}): it must be {expected}, got {value!r}")
    return value


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How a task wants its answers.

    Args:
        settings: how they are generated.
        until: texts that end an answer; they are no part of it.
    """

    settings: GenerationSettings
    until: tuple[str, ...] = ()

    def repeated(self, times: int) -> Generation:
        """Returns how a request is answered that came `times` times before: sampling draws anew, with another seed."""
        if not self.settings.do_sample:
            return self
        return replace(self, settings=replace(self.settings, seed=(self.settings.seed + times) % _NUM_SEEDS))


def read_generation(generation_kwargs: Mapping[str, object], default: GenerationSettings) -> Generation:
    """Reads a task's `generation_kwargs`.

    A task samples if it says so, or if it says nothing but a temperature above 0; a temperature of 0 never samples.
    A setting that we do not have is named once in the log and has no effect.

    Args:
        generation_kwargs: values by name; null is as good as missing.
        default: what holds where a task says nothing.

    Raises:
        UsageError: a value is out of range or no number.
    """
    kwargs = {name: value for name, value in generation_kwargs.items() if value is not None}
    _warn_of_ignored(tuple(sorted(kwargs.keys() - _GENERATION_KWARGS)))
    counts = {name: int(_number(name, kwargs[name])) for name in _COUNTS if name in kwargs}
    if counts.get("max_new_tokens", 0) > MAX_NEW_TOKENS:
        # Tasks for models that think aloud allow 8,192 to 49,152 tokens; an answer here ends long before.
        _warn_of_clamped(counts["max_new_tokens"])
        counts["max_new_tokens"] = MAX_NEW_TOKENS
    numbers = {name: _number(name, kwargs[name]) for name in _NUMBERS if name in kwargs}
    sampling = {name: _number(name, kwargs[name]) for name in _OF_SAMPLING if name in kwargs}
    temperature = sampling.get("temperature", 0.0)
    # Tasks write `temperature: 0` beside `do_sample: true` and mean greedy; it could not be divided by anyway.
    is_sampled = bool(kwargs.get("do_sample", temperature > 0)) and sampling.get("temperature") != 0
    values = {**counts, **numbers, **(sampling if is_sampled else {})}
    until = kwargs.get("until")
    ends = [until] if isinstance(until, str) else until if isinstance(until, list | tuple) else []
    return Generation(
        settings=replace(default, do_sample=is_sampled, **values),  # type: ignore[arg-type]
        until=tuple(end for end in ends if isinstance(end, str) and end),
    )


def cut(answer: str, until: Sequence[str]) -> str:
    r"""Returns the answer up to the first of the texts that end it.

    >>> cut("two cats\n\nQuestion: how", ["Question", "\n\n"])
    'two cats'
    """
    ends = [place for place in map(answer.find, until) if place >= 0]
    return answer[: min(ends, default=len(answer))].strip()


def _number(name: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"cannot use generation_kwargs ({name}): {value!r} is no number") from error
    if not math.isfinite(number):
        raise UsageError(f"cannot use generation_kwargs ({name}): {value!r} is no finite number")
    return number


@cache
def _warn_of_clamped(max_new_tokens: int) -> None:
    logger.warning("max_new_tokens is %d: at most %d are written", max_new_tokens, MAX_NEW_TOKENS)


@cache
def _warn_of_ignored(names: tuple[str, ...]) -> None:
    if names:  # the cache makes it one line for a task, not one for each of its thousands of requests
        logger.warning("%d generation_kwargs have no effect: %s", len(names), ", ".join(names))
