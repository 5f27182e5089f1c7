"""How a command is declared and shown: `@takes` gives it groups of options, `Command` writes its `--help`.

`@takes(RunOptions)` gives a command the options of a dataclass: Typer sees them as if they stood in the command's own
signature, the command gets one object. Without it every command would repeat some twenty parameters and pass them on
one by one.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Annotated, Any, TypeVar, get_type_hints

from typer.core import TyperCommand

C = TypeVar("C", bound=Callable[..., None])

INPUT, MODEL, ANSWER, OPTIMIZATION, OUTPUT = "Input", "Model", "Answer", "Optimization", "Output"
HEADINGS = (INPUT, MODEL, ANSWER, OPTIMIZATION, "Training", OUTPUT)
"""The headings of `--help`, in order; what only one command has comes before them."""

_OWN = "Options"


def takes(*groups: type) -> Callable[[C], C]:
    """Replaces a command's last parameters, one per group, by the options that the groups declare.

    Args:
        *groups: dataclasses, each field an option. `HEADING` is where `--help` shows a group's options that do not
            name a heading themselves; `IS_SHOWN_LAST` puts its options behind those of the groups that inherit it.
    """

    def wrap(command: C) -> C:
        parameters = inspect.signature(command, eval_str=True).parameters.values()
        own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in list(parameters)[: -len(groups)]]
        names = [p.name for p in parameters][-len(groups) :]
        options = [parameter for group in groups for parameter in _parameters(group)]

        @functools.wraps(command)
        def wrapped(**values: Any) -> None:
            # Making a group checks it, so what contradicts itself is refused before the command begins.
            made = [group(**{field.name: values.pop(field.name) for field in fields(group)}) for group in groups]
            command(**values, **dict(zip(names, made, strict=True)))

        # Typer reads the signature for order and defaults, and the annotations for the types: it needs both.
        wrapped.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in [*own, *options]}
        return wrapped  # type: ignore[return-value]

    return wrap


def _parameters(group: type) -> list[inspect.Parameter]:
    """Returns a group's options as parameters: its own, then those that are shown last, nearest base first."""
    hints = get_type_hints(group, include_extras=True)
    # A field does not tell which class declares it, and the heading is that class's.
    owners: dict[str, type] = {
        field.name: next(base for base in group.__mro__ if field.name in vars(base).get("__annotations__", {}))
        for field in fields(group)
    }

    def place(field: Field[Any]) -> int:
        owner = owners[field.name]
        return group.__mro__.index(owner) + 1 if vars(owner).get("IS_SHOWN_LAST") else 0

    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=_under(vars(owners[field.name]).get("HEADING"), hints[field.name]),
        )
        for field in sorted(fields(group), key=place)
    ]


def _under(heading: str | None, hint: Any) -> Any:
    """Returns an option's type with the heading under which it is shown, unless it names its own."""
    (option,) = hint.__metadata__
    if option.rich_help_panel is not None:
        return hint
    option = copy.copy(option)  # several commands share the object
    option.rich_help_panel = heading
    return Annotated[hint.__origin__, option]


_NARROW = 60  # columns in which help has no room beside the options' names: it stands below them


class Command(TyperCommand):
    """A command that lists its options under the headings that they name.

    Typer's own headings need rich, and importing rich would double the time of `--help`.
    """

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Returns `IMAGE... QUESTION` as we wrote it; Typer would put brackets and more dots around it."""
        arguments = [param for param in self.get_params(ctx) if param.param_type_name == "argument"]
        return ["[OPTIONS]", *(str(argument.metavar) for argument in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the arguments, then what only this command has, then the options that commands share."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Arguments", _OWN, *HEADINGS)}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is None:
                continue
            if param.param_type_name == "argument":
                # Without Typer's `<list[str]>` behind it: that is Python's name for what the dots say already.
                sections["Arguments"].append((str(param.metavar), record[1]))
            elif param.name == "help":
                sections[OUTPUT].append(record)
            else:
                sections[getattr(param, "rich_help_panel", None) or _OWN].append(record)
        for name, records in sections.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records, col_max=30 if formatter.width > _NARROW else 8)
