"""The losses of many documents' options in one pass, and which option greedy decoding would have written.

This is the one place that calls the model to rank.

Legend: B questions, K options of each, which may differ in number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

from lmms_eval.api.instance import GenerationResult

from vlinstruct.backend import Row, Seen
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Failed

_NATS_OF_A_HALF = math.log(2)


class Loss(tuple[float, bool], GenerationResult):  # type: ignore[misc]
    """An option's pair (mean loss in nats per token, end token included; whether greedy decoding writes the option).

    The loss is lower the better the option, and NaN where the model gave no finite score.

    lmms-eval 0.7.3 turns every result that is neither text nor a GenerationResult into a text (`api/instance.py`,
    `unwrap_generation_output`): a plain tuple reaches the task as "(0.5, True)", and no ranking can be scored. So this
    tuple is a GenerationResult, too, and its own text, which the response cache strips (`caching/response_cache.py`).

    Args:
        pair: the two values.
    """

    def __init__(self, pair: tuple[float, bool]) -> None:
        """Sets no attribute, as a GenerationResult would: the tuple holds everything."""

    @property
    def text(self) -> Self:
        """The pair: what the task gets."""
        return self

    def strip(self) -> Self:
        """Returns the pair: it is never blank."""
        return self


def rank(
    model: Model, seen: Sequence[Seen], instructions: Sequence[str], options: Sequence[Sequence[str]]
) -> list[list[Loss] | Failed]:
    """Returns every option's loss; a question's picture and instruction are read once for all its options.

    Args:
        model: the model.
        seen: the pictures, B.
        instructions: what is asked of each, B.
        options: what is ranked, B times K.

    Returns:
        Per question its options' losses, or why it failed.
    """
    outcomes = model.rank_each(seen, instructions, options)
    scores = {row: outcome for row, outcome in enumerate(outcomes) if not isinstance(outcome, Failed)}
    # A token that is likelier than all others together is the one that greedy decoding takes; an option of such tokens
    # is written, and needs no decoding to be sure of.
    flags = {
        row: [all(nll < _NATS_OF_A_HALF for nll in option.token_nll) for option in row_scores]
        for row, row_scores in scores.items()
    }
    undecided = [row for row, are_certain in flags.items() if not any(are_certain)]
    if undecided:
        rows = [Row(prompt=instructions[row], seen=(seen[row],), reads=instructions[row]) for row in undecided]
        longest = max(len(option.token_nll) for row in undecided for option in scores[row])
        for row, written in zip(
            undecided, model.backend.write(rows, GenerationSettings(max_new_tokens=longest)), strict=True
        ):
            if isinstance(written, Failed):
                outcomes[row] = written
            else:
                # By words: a tokenizer may give spaces back otherwise than they were typed.
                flags[row] = [option.split() == written.text.split() for option in options[row]]
    return [
        outcome
        if isinstance(outcome, Failed)
        else [Loss((option.mean_nll, flag)) for option, flag in zip(outcome, flags[row], strict=True)]
        for row, outcome in enumerate(outcomes)
    ]
