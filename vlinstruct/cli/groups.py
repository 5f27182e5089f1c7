"""Option groups: a dataclass of options becomes a command's parameters, and `--help` shows them under its heading.

`@takes(RunOptions)` gives a command the options of a dataclass: Typer sees them as if they stood in the command's own
signature, the command gets one object. A class says its `HEADING`, and with `POSITION` that its options come late.
Typer's own headings need rich, and importing rich would double the time of `--help`.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, TypeVar, get_type_hints

from typer.core import TyperCommand

C = TypeVar("C", bound=Callable[..., None])

INPUT, MODEL, ANSWER, OPTIMIZATION, OUTPUT = "Input", "Model", "Answer", "Optimization", "Output"
HEADINGS = (INPUT, MODEL, ANSWER, OPTIMIZATION, "Training", OUTPUT)
"""The headings of `--help`, in order; what only one command has comes before them."""

_OWN = "Options"


def takes(*kinds: type) -> Callable[[C], C]:
    """Replaces a command's last parameters, one per kind, by the options that the kinds declare."""

    def wrap(command: C) -> C:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[: -len(kinds)]

        @functools.wraps(command)
        def wrapped(**values: Any) -> None:
            groups = [kind(**{field.name: values.pop(field.name) for field in fields(kind)}) for kind in kinds]
            command(**values, **dict(zip(_group_names(command, kinds), groups, strict=True)))

        options = [parameter for kind in kinds for parameter in _parameters(kind)]
        keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        wrapped.__signature__ = inspect.Signature([*keyword_only, *options])  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in [*own, *options]}
        return wrapped  # type: ignore[return-value]

    return wrap


def _group_names(command: Callable[..., None], kinds: tuple[type, ...]) -> list[str]:
    return list(inspect.signature(command).parameters)[-len(kinds) :]


def _parameters(kind: type) -> list[inspect.Parameter]:
    """Returns a kind's options as parameters; what every command takes comes last."""
    hints = get_type_hints(kind, include_extras=True)
    owners = {field: _owner(kind, field.name) for field in fields(kind)}
    in_order = sorted(owners, key=lambda field: vars(owners[field]).get("POSITION", 0))
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=_under(vars(owners[field]).get("HEADING"), hints[field.name]),
        )
        for field in in_order
    ]


def _owner(kind: type, name: str) -> type:
    """Returns the class that declares a field."""
    return next(base for base in kind.__mro__ if name in vars(base).get("__annotations__", {}))


def _under(heading: str | None, hint: Any) -> Any:
    """Returns an option's type with the heading under which it is shown, unless it names its own."""
    (option,) = hint.__metadata__
    if option.rich_help_panel is not None:
        return hint
    option = copy.copy(option)
    option.rich_help_panel = heading
    return Annotated[hint.__origin__, option]


class Command(TyperCommand):
    """A command that lists its options under the headings that they name."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Returns `IMAGE... QUESTION` as we wrote it; Typer would put brackets and more dots around it."""
        arguments = [param for param in self.get_params(ctx) if param.param_type_name == "argument"]
        return ["[OPTIONS]", *(str(argument.metavar) for argument in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the arguments, then what only this command has, then the options that commands share."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Arguments", _OWN, *HEADINGS)}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                sections[_heading(param)].append(record)
        for name, records in sections.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)


def _heading(param: Any) -> str:
    if param.param_type_name == "argument":
        return "Arguments"
    return OUTPUT if param.name == "help" else getattr(param, "rich_help_panel", None) or _OWN
