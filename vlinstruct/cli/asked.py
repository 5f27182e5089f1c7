"""What was asked in place of what was typed, in a sentence: whoever reads an answer wants to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlinstruct.errors import shortened

if TYPE_CHECKING:
    from vlinstruct.operations import Fields

_MAX_CHARACTERS = 200  # leaves room for the scores in the same line


def asked(optimization: Fields) -> str:
    """Says what an optimization chose to ask.

    Args:
        optimization: its fields, as a record has them.

    >>> typed, better = {"text": "color?", "ias": 2.31}, {"text": "What colour is it?", "ias": 1.2}
    >>> asked({"initial": typed, "rewritten": better, "chosen": "rewritten"})
    '"What colour is it?" (IAS 2.31 -> 1.20)'
    >>> asked({"initial": {**typed, "certainty": 0.93}, "chosen": "initial"})
    'your words, left alone (sure of the answer: 0.93)'
    """
    initial, used = optimization["initial"], optimization[optimization["chosen"]]
    if "rewritten" not in optimization:
        return f"your words, left alone (sure of the answer: {initial['certainty']:.2f})"
    if used["text"] == initial["text"]:
        return f"your words: {optimization['reason']}"
    return f'"{shortened(used["text"], _MAX_CHARACTERS)}" (IAS {_written(initial)} -> {_written(used)})'


def _written(scored: Fields) -> str:
    return "not finite" if scored["ias"] is None else f"{scored['ias']:.2f}"
