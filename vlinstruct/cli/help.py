"""`--help` of a command: its options under headings, its usage line as we wrote it.

Typer's own headings need rich, and importing rich would double the time of `--help`.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from vlinstruct.cli.options import HEADINGS, OUTPUT

_OWN = "Options"


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
