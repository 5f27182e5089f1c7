"""Rank: instructions in descending order of IAS, so that the better one stands last (section 3.2, algorithm 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vlinstruct.errors import ScoreError
from vlinstruct.values import ScoredInstruction


def is_finite(scored: ScoredInstruction) -> bool:
    """Says whether the instruction's IAS is a number that can be compared."""
    return math.isfinite(scored.ias)


def rank(candidates: Sequence[ScoredInstruction]) -> list[ScoredInstruction]:
    """Orders candidates from worst to best.

    Args:
        candidates: scored instructions, the initial one first.

    Returns:
        Descending IAS; ties keep the order given, and an IAS that is not finite is the worst of all.

    >>> from vlinstruct.values import TokenScores
    >>> scores = TokenScores(tokens=(), token_nll=())
    >>> def scored(text, ias): return ScoredInstruction(text=text, ias=ias, scores=scores)
    >>> [one.text for one in rank([scored("good", 1.0), scored("bad", 2.0), scored("broken", math.nan)])]
    ['broken', 'bad', 'good']
    """
    return sorted(candidates, key=lambda one: -one.ias if is_finite(one) else -math.inf)


def best(candidates: Sequence[ScoredInstruction]) -> ScoredInstruction:
    """Returns the candidate of the lowest finite IAS, the first of equals.

    Raises:
        ScoreError: no IAS is finite.
    """
    finite = [one for one in candidates if is_finite(one)]
    if not finite:
        raise no_finite_ias()
    return min(finite, key=lambda one: one.ias)


def no_finite_ias() -> ScoreError:
    """Returns what to tell the user when no instruction can be compared."""
    return ScoreError(
        "the model gives no usable instruction a finite IAS, so the initial one stays as it is: "
        "check the image, or compute in float32"
    )
