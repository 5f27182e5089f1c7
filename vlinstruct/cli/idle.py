"""Options that were typed and change nothing: they are said with the reason, and are no error."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from typing import Any

from vlinstruct.cli.terminal import Talk


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
    if why is not None:
        rules = (Idle(names=[field.name for field in fields(options)], why=why),)
    for rule in rules or options.IDLE:
        names = [
            f"--{field.name.replace('_', '-')}"
            for field in fields(options)
            if field.name in rule.names and getattr(options, field.name) != field.default
        ]
        if names and rule.holds(options):
            talk.notice(f"{' and '.join(names)} change{'s' * (len(names) == 1)} nothing {rule.why}.")
