"""What was asked in place of what was typed, in a sentence: whoever reads an answer wants to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlinstruct.errors import shortened

if TYPE_CHECKING:
    from vlinstruct.operations import Fields

_MAX_CHARACTERS = 200  # leaves room for the scores in the same line


def asked(optimization: Fields, typed: str = "your words") -> str:
    """Says what an optimization chose to ask.

    Args:
        optimization: its fields, as a record has them.
        typed: what the initial instruction is called.

    >>> typed, better = {"text": "color?", "ias": 2.31}, {"text": "What colour is it?", "ias": 1.2}
    >>> asked({"initial": typed, "rewritten": better, "chosen": "rewritten"})
    '"What colour is it?" (IAS 2.31 -> 1.20)'
    >>> asked({"initial": {**typed, "certainty": 0.93}, "chosen": "initial"})
    'your words, left alone (sure of the answer: 0.93)'
    """
    initial, used = optimization["initial"], optimization[optimization["chosen"]]
    if "rewritten" not in optimization:
        return f"{typed}, left alone (sure of the answer: {initial['certainty']:.2f})"
    if used["text"] == initial["text"]:
        return f"{typed}: {optimization['reason']}"
    scores = change(optimization)
    return f'"{shortened(used["text"], _MAX_CHARACTERS)}"' + (f" ({scores})" if scores else "")


def change(optimization: Fields) -> str:
    """Says what an optimization changed: the IAS before and after, the certainty of the answers where there is none.

    Args:
        optimization: its fields, as a record has them.

    >>> typed, better = {"ias": None, "certainty": 0.41}, {"ias": None, "certainty": 0.93}
    >>> change({"initial": typed, "rewritten": better, "chosen": "rewritten"})
    'certainty 0.41 -> 0.93'
    """
    initial, used = optimization["initial"], optimization[optimization["chosen"]]
    # Servers without likelihoods tell no IAS at all; of one alone it is not finite.
    name = "certainty" if initial["ias"] is used["ias"] is None else "IAS"
    before, after = (scored.get(name.lower()) for scored in (initial, used))
    if name == "certainty" and (before is None or after is None):
        return ""
    return f"{name} {_written(before)}" + ("" if used is initial else f" -> {_written(after)}")


def _written(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2f}"
