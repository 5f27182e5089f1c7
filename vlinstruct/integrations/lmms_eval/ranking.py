"""Ranks the options of many documents in one pass, and says which of them greedy decoding would have written.

Legend: B questions, K options of each, which may differ in number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Percept, TokenScores

_NATS_OF_A_HALF = math.log(2)


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """An option's place in a ranking.

    Args:
        mean_nll: nats per token, end token included; lower is better. NaN where the model gave no finite score.
        is_greedy: whether greedy decoding writes this option.
    """

    mean_nll: float
    is_greedy: bool


def rank(
    model: InstructBlipBackend, percept: Percept, instructions: Sequence[str], options: Sequence[Sequence[str]]
) -> list[list[Ranked]]:
    """Ranks options; a question's picture and instruction are read once for all of them.

    Args:
        model: the model.
        percept: the pictures, B.
        instructions: what is asked of each, B.
        options: what is ranked, B times K.
    """
    scores = model.candidate_nll(percept, instructions, instructions, options)
    flags = [[_is_certain(one) for one in row] for row in scores]
    undecided = [row for row, certain in enumerate(flags) if not any(certain)]
    if undecided:
        asked = [instructions[row] for row in undecided]
        longest = max(len(one.token_nll) for row in undecided for one in scores[row])
        written = model.generate(percept.select(undecided), asked, asked, GenerationSettings(max_new_tokens=longest))
        for row, text in zip(undecided, written, strict=True):
            flags[row] = [option.split() == text.split() for option in options[row]]
    return [
        [Ranked(mean_nll=one.mean_nll, is_greedy=flag) for one, flag in zip(row, certain, strict=True)]
        for row, certain in zip(scores, flags, strict=True)
    ]


def _is_certain(scores: TokenScores) -> bool:
    """Says whether every token is likelier than all others together: then greedy decoding takes it, and no other."""
    return all(nll < _NATS_OF_A_HALF for nll in scores.token_nll)
