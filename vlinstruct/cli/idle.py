"""Options that were typed and change nothing: said with the reason, or refused where they would be a guard."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields
from typing import Any

from vlinstruct.cli.terminal import Talk
from vlinstruct.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Idle:
    """When some options of a group change nothing.

    Args:
        names: their fields.
        why: in words, behind "change nothing".
        holds: says of the group whether they do.
    """

    names: Collection[str]
    why: str
    holds: Callable[[Any], bool] = lambda it: True


def say_idle(talk: Talk, options: Any, *rules: Idle, why: str | None = None) -> None:
    """Says which of a group's options were typed and change nothing; what equals its default was as good as not typed.

    Args:
        talk: says it.
        options: the group.
        *rules: when; the group's own, `IDLE`, if there are none.
        why: the reason, where none of the group changes anything.
    """
    for sentence in _sentences(options, rules, why):
        talk.notice(f"{sentence}.")


def refuse_idle(options: Any, *rules: Idle, why: str | None = None) -> None:
    """Refuses what `say_idle` would say: a guard that somebody asked for must not be dropped.

    Raises:
        UsageError: the first sentence.
    """
    for sentence in _sentences(options, rules, why):
        raise UsageError(sentence, advice="Leave it out.")


def _sentences(options: Any, rules: Collection[Idle], why: str | None) -> Iterator[str]:
    if why is not None:
        rules = (Idle(names=[field.name for field in fields(options)], why=why),)
    typed = [field for field in fields(options) if getattr(options, field.name) != field.default]
    for rule in rules or options.IDLE:
        # `try_`, as Python spells a word that it has taken
        names = [f"--{field.name.strip('_').replace('_', '-')}" for field in typed if field.name in rule.names]
        if names and rule.holds(options):
            yield f"{' and '.join(names)} change{'s' * (len(names) == 1)} nothing {rule.why}"
