"""What becomes of a text that the model wrote: by rewriting, or by comparing."""

from __future__ import annotations

from dataclasses import dataclass

from vlinstruct.text import is_blank


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An instruction written by the model.

    Args:
        text: the instruction without white space around it; never blank.
        notice: what a user should know about it, one sentence; None when all went well.
        certainty: the probability of its least likely token when it was written; None where nobody asked.
    """

    text: str
    notice: str | None = None
    certainty: float | None = None


def settle(output: str, *, fallback: str, notice: str) -> Draft:
    """Turns the model's output into an instruction, whatever the model wrote.

    Args:
        output: the generated text.
        fallback: the instruction that stands in for a blank output.
        notice: says so.

    Returns:
        The draft; it carries the notice only when the fallback stands in.

    >>> settle(" What is it? ", fallback="what", notice="nothing came").text
    'What is it?'
    >>> settle(" ", fallback="what", notice="nothing came").notice
    'nothing came'
    """
    return Draft(text=fallback, notice=notice) if is_blank(output) else Draft(text=output.strip())
