"""`vlinstruct score`: how well instructions fit a picture (IAS, eq. 3), token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vlinstruct.cli.command import takes
from vlinstruct.cli.options import RunOptions
from vlinstruct.cli.terminal import Talk
from vlinstruct.text import check_instruction

if TYPE_CHECKING:
    from vlinstruct.operations import Fields

_USAGE = 'vlinstruct score IMAGE "INSTRUCTION"...'


@takes(RunOptions)
def score(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="A picture, clip or sound, a folder, a quoted glob, - or a URL.")
    ],
    instructions: Annotated[list[str], typer.Argument(metavar="INSTRUCTION...", help="What to score.")],
    *,
    options: RunOptions,
) -> None:
    """Score instructions for a picture; lower fits better.

    The score is the IAS: mean nats per token of the instruction, given the picture.
    """
    from vlinstruct.cli.run import refuse_swapped, run, typed_work
    from vlinstruct.operations import Score

    refuse_swapped([image], instructions, _USAGE)
    for instruction in instructions:
        check_instruction(instruction)
    talk = Talk(quiet=options.quiet)
    work = typed_work([image], tuple(instructions), options, talk)
    run(Score(), work, options=options, talk=talk, render=_render)


def _render(record: Fields) -> str:
    """Writes two lines per instruction: its IAS, and the tokens that it is the mean of; the highest fit worst."""
    lines = []
    for scored in record["scores"]:
        ias = "not finite" if scored["ias"] is None else f"{scored['ias']:.4f}"
        pairs = zip(scored["tokens"], scored["token_nll"], strict=True)
        tokens = "  ".join(f"{token} {'-' if nll is None else f'{nll:.2f}'}" for token, nll in pairs)
        lines += [f"{ias}  {scored['instruction']}", f"        {tokens}"]
    return "\n".join(lines)
