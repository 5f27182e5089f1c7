"""Accuracy and mean reciprocal rank: is an answer right by its text, and how far up stands the right candidate.

In: an answer's text, or the negative log-likelihood of every candidate, lower is better. Out: per item true or false,
or a rank from 1; a table takes the mean, of ranks that of their reciprocals (Visual Dialog).

Where we differ: lmms-eval 0.7.3's exact match of gqa leaves out all punctuation, so that "t-shirt" equals "tshirt", and
then strips nothing, so that "yes ." is not "yes". Of 520 pairs with ordinary ends none differs; of all 144 pairs of
twelve spellings made for it, 10 do. Its scienceqa reads the letter that a model writes; given that of the option ranked
first, it is our ranked accuracy.

Ties: the Visual Dialog starter kit (`scores_to_ranks`) sorts the scores and takes positions, so equal candidates get
ranks of their own. Which comes first it leaves to torch's sort, which promises no order (torch 2.13 keeps that of 16
candidates, not that of 100); here it is the one offered first, as a stable sort has it. The right answer stands at a
random place among the candidates, so over a set this favours nobody. scikit-learn's average precision of label ranking
takes the last of the equal places.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence

from vlinstruct.errors import DataError, ScoreError

# What ends a sentence, and nothing else: a quotation mark or a bracket may belong to what the picture shows.
_FINAL_PUNCTUATION = ".,;:!?"


def normalized(answer: str) -> str:
    """Returns the answer stripped, in lower case and without final punctuation; nothing else is changed.

    >>> normalized(" Yes, it is. ")
    'yes, it is'
    """
    return answer.strip().lower().rstrip(_FINAL_PUNCTUATION + string.whitespace).rstrip()


def is_exact_match(prediction: str, answer: str) -> bool:
    """Returns whether two answers are equal once normalized.

    >>> is_exact_match("True.", "true"), is_exact_match("the dog", "dog")
    (True, False)
    """
    return normalized(prediction) == normalized(answer)


def is_ranked_first(nll: Sequence[float], target: int) -> bool:
    """Returns whether the right candidate has the lowest score, and is the first of equals.

    Args:
        nll: negative log-likelihood per candidate, in nats, lower is better.
        target: the index of the right candidate.

    Raises:
        DataError: there is no candidate at `target`.
        ScoreError: a candidate's score is not finite.

    >>> is_ranked_first([2.0, 1.0], target=1)
    True
    """
    return target_rank(nll, target) == 1


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
    if not 0 <= target < len(nll):
        advice = "Give the index of one of the candidates, from 0"
        raise DataError.at("cannot rank candidates", f"target {target}", f"there are {len(nll)} candidates", advice)
    # NaN compares false with everything, so that a right candidate without a score would count as the best.
    if not all(map(math.isfinite, nll)):
        index = next(index for index, score in enumerate(nll) if not math.isfinite(score))
        why = f"its score is {nll[index]}"
        raise ScoreError.at("cannot rank candidates", f"candidate {index}", why, "Compute in float32")
    # Counted, not sorted: one pass over the 100 candidates of a dialogue, and the rule for ties stands here to be read.
    num_better = sum(other < nll[target] for other in nll)
    num_equal_before = sum(other == nll[target] for other in nll[:target])
    return 1 + num_better + num_equal_before


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
