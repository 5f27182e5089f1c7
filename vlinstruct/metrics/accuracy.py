"""Accuracy: how many answers are right, by their text or by the candidate ranked first.

In: one comparison per item. Out: true or false; a table takes their mean.

Where we differ: lmms-eval 0.7.3's exact match of gqa leaves out all punctuation, so that "t-shirt" equals "tshirt", and
then strips nothing, so that "yes ." is not "yes". Of 520 pairs with ordinary ends none differs; of all 144 pairs of
twelve spellings made for it, 10 do. Its scienceqa reads the letter that a model writes; given that of the option ranked
first, it is our ranked accuracy.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

from vlinstruct.metrics.mrr import target_rank

_FINAL_PUNCTUATION = ".,;:!?"


def normalized(answer: str) -> str:
    """Returns the answer stripped, in lower case and without final punctuation; nothing else is changed.

    >>> normalized(" Yes, it is. ")
    'yes, it is'
    """
    return answer.strip().lower().rstrip(_FINAL_PUNCTUATION + string.whitespace).rstrip()


def is_exact_match(prediction: str, answer: str) -> bool:
    """Says whether two answers are equal once normalized.

    >>> is_exact_match("True.", "true"), is_exact_match("the dog", "dog")
    (True, False)
    """
    return normalized(prediction) == normalized(answer)


def is_ranked_first(nll: Sequence[float], target: int) -> bool:
    """Says whether the right candidate has the lowest score, and is the first of equals.

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
