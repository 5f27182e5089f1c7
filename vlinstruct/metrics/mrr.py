"""Mean reciprocal rank of Visual Dialog: how far up the right candidate stands.

In: the negative log-likelihood of every candidate, lower is better. Out: ranks from 1, the mean of their reciprocals.

Ties: the Visual Dialog starter kit (`scores_to_ranks`) sorts the scores and takes positions, so equal candidates get
ranks of their own. Which comes first it leaves to torch's sort, which promises no order (torch 2.13 keeps that of 16
candidates, not that of 100); here it is the one offered first, as a stable sort has it. The right answer stands at a
random place among the candidates, so over a set this favours nobody. scikit-learn's average precision of label ranking
takes the last of the equal places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from vlinstruct.errors import DataError, ScoreError


def target_rank(nll: Sequence[float], target: int) -> int:
    """Returns the rank of the right candidate, 1 for the best.

    Args:
        nll: negative log-likelihood per candidate, in nats, lower is better.
        target: the index of the right candidate.

    Raises:
        DataError: there is no candidate at `target`.
        ScoreError: a candidate's score is not finite.

    >>> target_rank([3.0, 1.0, 2.0], target=2)
    2
    >>> target_rank([1.0, 1.0, 1.0], target=2)
    3
    """
    _check(nll, target)
    better = sum(other < nll[target] for other in nll)
    equal_before = sum(other == nll[target] for other in nll[:target])
    return 1 + better + equal_before


def mean_reciprocal_rank(ranks: Sequence[int]) -> float:
    """Returns the mean of 1 / rank, 0 to 1.

    Args:
        ranks: the rank of the right candidate per item, from 1.

    Raises:
        DataError: there are no ranks, or one is below 1.

    >>> mean_reciprocal_rank([1, 2, 4, 4])
    0.5
    """
    if not ranks or min(ranks) < 1:
        why = "there are no ranks" if not ranks else f"a rank is {min(ranks)}"
        advice = "Give one rank per item, 1 for the best candidate"
        raise DataError.at("cannot compute the mean reciprocal rank", "ranks", why, advice)
    return math.fsum(1 / rank for rank in ranks) / len(ranks)


def _check(nll: Sequence[float], target: int) -> None:
    if not 0 <= target < len(nll):
        advice = "Give the index of one of the candidates, from 0"
        raise DataError.at("cannot rank candidates", f"target {target}", f"there are {len(nll)} candidates", advice)
    if not all(map(math.isfinite, nll)):
        index = next(index for index, score in enumerate(nll) if not math.isfinite(score))
        why = f"its score is {nll[index]}"
        raise ScoreError.at("cannot rank candidates", f"candidate {index}", why, "Compute in float32")
