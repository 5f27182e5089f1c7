"""`vlinstruct score`: how well instructions fit a picture (IAS, eq. 3), token by token."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from vlinstruct.cli.command import takes
from vlinstruct.cli.options import DataOptions, RunOptions
from vlinstruct.cli.tables import Grid, Line, Look
from vlinstruct.cli.terminal import Talk
from vlinstruct.errors import UsageError
from vlinstruct.text import check_instruction

if TYPE_CHECKING:
    from vlinstruct.operations import Fields

_USAGE = 'vlinstruct score IMAGE "INSTRUCTION"...'


@takes(DataOptions, RunOptions)
def score(
    image: Annotated[
        str | None,
        typer.Argument(metavar="IMAGE", help="A picture, clip or sound, a folder, a quoted glob, - or a URL."),
    ] = None,
    instructions: Annotated[list[str] | None, typer.Argument(metavar="INSTRUCTION...", help="What to score.")] = None,
    *,
    data: DataOptions,
    options: RunOptions,
) -> None:
    """Score instructions for a picture; lower fits better.

    The score is the IAS: mean nats per token of the instruction, given the picture. An item of --data may have several
    in a list.

    \b
    vlinstruct score picture.png "What is written?" "How many are there?"
    """
    from vlinstruct.cli.run import file_work, refuse_swapped, run, typed_work
    from vlinstruct.operations import Score

    talk = Talk(quiet=options.quiet)
    if data.data is not None:
        if image is not None:
            raise UsageError("--data brings its own pictures and instructions: leave IMAGE and INSTRUCTION away.")
        work = file_work(data.data, options, data, talk, takes_lists=True)
    else:
        if image is None or not instructions:
            raise UsageError("a picture and an instruction are needed", advice=f"Type: {_USAGE}")
        refuse_swapped([image], instructions, _USAGE)
        for instruction in instructions:
            check_instruction(instruction)
        work = typed_work([image], tuple(instructions), options, talk)
    run(Score(), work, options=options, talk=talk, look=_LOOK)


def _render(record: Fields) -> str:
    """Writes two lines per instruction: its IAS, and the tokens that it is the mean of; the highest fit worst."""
    lines = []
    for scored in record["scores"]:
        ias = "not finite" if scored["ias"] is None else f"{scored['ias']:.4f}"
        pairs = zip(scored["tokens"], scored["token_nll"], strict=True)
        tokens = "  ".join(f"{token} {'-' if nll is None else f'{nll:.2f}'}" for token, nll in pairs)
        lines += [f"{ias}  {scored['instruction']}", f"        {tokens}"]
    return "\n".join(lines)


def _drawn(record: Fields) -> list[Grid | str]:
    """Returns a table of the instructions, the one that fits best bold, with the tokens below each."""
    lines = []
    for line, scored in zip(_by_fit(record), record["scores"], strict=True):
        pairs = zip(scored["tokens"], scored["token_nll"], strict=True)
        tokens = "  ".join(f"{token}={'-' if nll is None else f'{nll:.2f}'}" for token, nll in pairs)
        lines += [line, Line(cells=("", tokens), style="dim")]
    return [Grid(heads=("IAS", "instruction"), lines=lines, numbers=(0,))]


def _by_fit(record: Fields) -> list[Line]:
    fits = [scored["ias"] for scored in record["scores"] if scored["ias"] is not None]
    best = min(fits, default=None)
    return [
        Line(
            cells=("-" if scored["ias"] is None else f"{scored['ias']:.4f}", scored["instruction"]),
            style="bold" if scored["ias"] == best else "",
        )
        for scored in record["scores"]
    ]


def _lines(record: Fields) -> list[Line]:
    return [replace(line, cells=line.cells[::-1]) for line in _by_fit(record)]


_LOOK = Look(plain=_render, drawn=_drawn, heads=lambda record: ("instruction", "IAS"), lines=_lines)
