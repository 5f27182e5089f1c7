"""From a task's `generation_kwargs` to our settings, and from what was generated to what the task wants of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from vlinstruct.errors import UsageError
from vlinstruct.settings import GenerationSettings

logger = logging.getLogger(__name__)

_NUM_SEEDS = 2**64
_COUNTS = ("max_new_tokens", "num_beams")
_NUMBERS = ("length_penalty", "repetition_penalty")
_OF_SAMPLING = ("temperature", "top_p")
_KNOWN = frozenset({*_COUNTS, *_NUMBERS, *_OF_SAMPLING, "do_sample", "until"})


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How a task wants its answers.

    Args:
        config: how they are generated.
        until: texts that end an answer; they are no part of it.
    """

    config: GenerationSettings
    until: tuple[str, ...] = ()

    def repeated(self, times: int) -> Generation:
        """Returns how the same is asked once more: sampling draws anew, anything else comes out the same."""
        if not self.config.do_sample:
            return self
        return replace(self, config=replace(self.config, seed=(self.config.seed + times) % _NUM_SEEDS))


def read_generation(asked: Mapping[str, object], default: GenerationSettings) -> Generation:
    """Reads a task's `generation_kwargs`.

    A task samples if it says so, or if it says nothing but a temperature above 0; a temperature of 0 never samples.
    What we do not know is named once and has no effect.

    Args:
        asked: they.
        default: what holds where they say nothing, or null.

    Raises:
        UsageError: a value is out of range or no number.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    _say_ignored(tuple(sorted(given.keys() - _KNOWN)))
    counts = {name: int(_number(name, given[name])) for name in _COUNTS if name in given}
    numbers = {name: _number(name, given[name]) for name in _NUMBERS if name in given}
    sampling = {name: _number(name, given[name]) for name in _OF_SAMPLING if name in given}
    temperature = sampling.get("temperature", 0.0)
    samples = bool(given.get("do_sample", temperature > 0)) and sampling.get("temperature") != 0
    values = {**counts, **numbers, **(sampling if samples else {})}
    config = replace(default, do_sample=samples, **values)  # type: ignore[arg-type]
    return Generation(config=config, until=_texts(given.get("until")))


def cut(answer: str, until: Sequence[str]) -> str:
    r"""Returns the answer up to the first of the texts that end it.

    >>> cut("two cats\n\nQuestion: how", ["Question", "\n\n"])
    'two cats'
    """
    ends = [place for place in map(answer.find, until) if place >= 0]
    return answer[: min(ends, default=len(answer))].strip()


def _number(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise UsageError(f"cannot use generation_kwargs ({name}): {value!r} is no number") from error


def _texts(until: object) -> tuple[str, ...]:
    listed = [until] if isinstance(until, str) else until
    return tuple(one for one in listed if isinstance(one, str) and one) if isinstance(listed, list | tuple) else ()


@cache
def _say_ignored(names: tuple[str, ...]) -> None:
    if names:
        logger.warning("%d generation_kwargs have no effect: %s", len(names), ", ".join(names))
