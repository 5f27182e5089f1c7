"""The losses of many documents' options in one pass, and which option greedy decoding would have written.

This is the one place that calls the model to rank.

Legend: B questions, K options of each, which may differ in number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

from lmms_eval.api.instance import GenerationResult

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Percept

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
    model: InstructBlipBackend, percept: Percept, instructions: Sequence[str], options: Sequence[Sequence[str]]
) -> list[list[Loss]]:
    """Returns every option's loss; a question's picture and instruction are read once for all its options.

    Args:
        model: the model.
        percept: the pictures, B.
        instructions: what is asked of each, B.
        options: what is ranked, B times K.
    """
    scores = model.candidate_nll(percept, instructions, instructions, options)
    # A token that is likelier than all others together is the one that greedy decoding takes; an option of such tokens
    # is written, and needs no decoding to be sure of.
    flags = [[all(nll < _NATS_OF_A_HALF for nll in option.token_nll) for option in row] for row in scores]
    undecided = [row for row, are_certain in enumerate(flags) if not any(are_certain)]
    if undecided:
        prompts = [instructions[row] for row in undecided]
        longest = max(len(option.token_nll) for row in undecided for option in scores[row])
        texts = model.generate(percept.select(undecided), prompts, prompts, GenerationSettings(max_new_tokens=longest))
        for row, text in zip(undecided, texts, strict=True):
            flags[row] = [option.split() == text.split() for option in options[row]]
    return [
        [Loss((option.mean_nll, is_greedy)) for option, is_greedy in zip(row, row_flags, strict=True)]
        for row, row_flags in zip(scores, flags, strict=True)
    ]
