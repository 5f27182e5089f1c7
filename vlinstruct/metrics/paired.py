"""Two ways of answering the same items: is one better, by how much, and with what certainty, from a few dozen items.

In: the difference of the two scores on every item (paired). Out: a p-value, or an interval. A bootstrap of twenty
differences that are all 0 says that the truth is 0, and one of five right answers says nothing of the sixth: so few
items need what is made for few. `tests/tools/tune_trials.py coverage` measures how often the intervals hold the truth.

Legend: N items.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlinstruct.metrics.bootstrap import Interval, wilson
from vlinstruct.metrics.roc_auc import middle_ranks

_MAX_ENUMERATED = 12
_ADDED = 1 / 8  # of an item
_TRUSTED = 0.7  # how much of the spread is what the items show; the rest is a share's
_NUM_FLIPS, _FLIPS_AT_ONCE = 20_000, 500  # all signs of 10,000 items would take 1.6 GB
# Student's 97.5th percentile by degrees of freedom; between two the smaller one's, beyond the last the normal's.
_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228}
_T |= {12: 2.179, 14: 2.145, 16: 2.120, 18: 2.101, 20: 2.086, 24: 2.064, 28: 2.048, 35: 2.030, 50: 2.009, 80: 1.990}
_T |= {150: 1.976, 500: 1.965}


def sign_flip_p_value(differences: Sequence[float], *, seed: int = 0) -> float:
    """Returns how probable so large a mean is, were both ways alike: a one-sided paired permutation test.

    Were they alike, each difference might as well have the other sign (Fisher 1935; for right and wrong answers it is
    McNemar's exact test). Differences of 0 say nothing and are left out.

    Args:
        differences: of the scores, N; above 0 where the second way is better.
        seed: of the signs, where there are too many to try all of them.

    >>> sign_flip_p_value([1.0] * 5 + [0.0] * 9), sign_flip_p_value([0.0, 0.0])
    (0.03125, 1.0)
    """
    unequal = np.array([difference for difference in differences if difference], dtype=np.float64)
    if not len(unequal):
        return 1.0
    if len(unequal) <= _MAX_ENUMERATED:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(unequal))))
        return float((signs @ unequal >= unequal.sum() - 1e-9).mean())
    # Right and wrong answers differ by 1 alone: how many signs are positive is binomial, however many there are.
    if set(np.abs(unequal)) == {1.0}:
        num, wins = len(unequal), int((unequal > 0).sum())
        return math.fsum(math.comb(num, k) for k in range(wins, num + 1)) / 2**num
    rng, num_as_large = np.random.default_rng(seed), 0
    for _ in range(_NUM_FLIPS // _FLIPS_AT_ONCE):
        signs = rng.choice((1.0, -1.0), size=(_FLIPS_AT_ONCE, len(unequal)))
        num_as_large += int((signs @ unequal >= unequal.sum() - 1e-9).sum())
    # One more on both sides: the signs as they are are one of the possible ones, so that no p-value is 0.
    return (1 + num_as_large) / (_NUM_FLIPS + 1)


def two_sided_p_value(differences: Sequence[float], *, seed: int = 0) -> float:
    """Returns how probable a mean is that lies so far from 0 on either side, were both ways alike.

    Both ends of the signs' distribution hold as much. For right and wrong answers it is McNemar's exact test.

    Args:
        differences: of the scores, N.
        seed: of the signs, where there are too many to try all of them.

    >>> two_sided_p_value([1.0] * 5 + [0.0] * 9), two_sided_p_value([1.0, -1.0])
    (0.0625, 1.0)
    """
    better = sign_flip_p_value(differences, seed=seed)
    worse = sign_flip_p_value([-difference for difference in differences], seed=seed)
    return min(1.0, 2 * min(better, worse))


def swapped_areas(
    labels: NDArray[np.bool_],
    scores: NDArray[np.float64],
    others: NDArray[np.float64],
    *,
    seed: int,
    num_draws: int,
) -> NDArray[np.float64]:
    """Returns by how much the first of two areas under the ROC curve is larger if items swap their scores, (1 + R,).

    First as they are, then on R draws, each of which swaps every item's two scores or does not. Ranks are swapped: an
    area knows nothing else of a score, and those of two models have no unit in common (Venkatraman 2000).

    Args:
        labels: True for a positive item, (N,).
        scores: the first way's, (N,).
        others: the second way's, (N,).
        seed: of the draws.
        num_draws: R.
    """
    ranks, other_ranks = middle_ranks(scores), middle_ranks(others)
    flips = np.random.default_rng(seed).random((1 + num_draws, len(labels))) < 1 / 2
    flips[0] = False

    def share_won(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> NDArray[np.float64]:
        return (np.sign(positive[labels, None] - negative[None, ~labels]) + 1) / 2

    # An area is a mean over pairs of a positive and a negative item, and what a pair adds depends on which of the two
    # are swapped: four matrices, of which those of the other way are these with the swapping turned round.
    alike = share_won(ranks, ranks) - share_won(other_ranks, other_ranks)
    mixed = share_won(ranks, other_ranks) - share_won(other_ranks, ranks)
    kept, kept_negative = 1.0 - flips[:, labels], 1.0 - flips[:, ~labels]
    swapped, swapped_negative = 1 - kept, 1 - kept_negative
    sums = (kept @ alike - swapped @ mixed) * kept_negative
    other_sums = (kept @ mixed - swapped @ alike) * swapped_negative
    areas: NDArray[np.float64] = (sums.sum(axis=1) + other_sums.sum(axis=1)) / alike.size
    return areas


def flipped_sums(differences: NDArray[np.float64], *, seed: int, num_draws: int) -> NDArray[np.float64]:
    """Returns the sum of differences, then that of R draws in which each has either sign, (1 + R,).

    Args:
        differences: N.
        seed: of the draws.
        num_draws: R.
    """
    unequal = differences[differences != 0]
    flips = np.random.default_rng(seed).random((1 + num_draws, len(unequal))) < 1 / 2
    flips[0] = False
    sums: NDArray[np.float64] = np.where(flips, -1.0, 1.0) @ unequal
    return sums


def difference_interval(differences: Sequence[float], *, largest: float) -> Interval:
    """Returns the mean difference with its 95 % interval, which is not empty where no item differs.

    As Agresti and Min (2005) do for paired shares, a little of an item is added to each of the four ways in which two
    answers can be right or wrong. They add a half; an eighth holds the truth in 94.7 to 98.3 % of tasks of 20 to 60
    items where a half does in 97 to 99.6 %. The differences need not be -1, 0 and 1, and Student's t stands for the
    normal distribution.

    Args:
        differences: of the scores, N, at least 1.
        largest: the most that a difference can be.

    >>> nothing = difference_interval([0.0] * 20, largest=1.0)
    >>> round(nothing.low, 2), nothing.value, round(nothing.high, 2)
    (-0.05, 0.0, 0.05)
    """
    values = np.array(differences, dtype=np.float64)
    num_items = len(values) + 4 * _ADDED
    mean = values.sum() / num_items
    square = ((values**2).sum() + 2 * _ADDED * largest**2) / num_items
    spread = _t(len(values) - 1) * math.sqrt(max(square - mean**2, 0.0) / num_items)
    low, high = max(mean - spread, -largest), min(mean + spread, largest)
    return Interval(value=float(values.mean()), low=float(low), high=float(high))


def score_interval(scores: Sequence[float], *, largest: float | None) -> Interval:
    """Returns the mean score of a few items with its 95 % interval.

    Of right and wrong answers it is Wilson's. Scores between these spread less than a share does, and a few items tell
    by how much only roughly: Wilson's of so many more items as make up for a part of that. Captions' scores have a long
    tail and no end that they come near to: Student's t, moved by their skewness (Johnson 1978), with the spread that
    they had if one more item of the lowest and one of the highest score were there.

    Args:
        scores: of the items, N, at least 1; none below 0.
        largest: the most that a score can be, where means come near it; None where they do not (CIDEr).

    >>> round(score_interval([1.0] * 20, largest=1.0).low, 3)
    0.839
    """
    values = np.array(scores, dtype=np.float64)
    num_items, mean, variance = len(values), float(values.mean()), float(values.var())
    if largest is not None:
        share = min(max(mean / largest, 0.0), 1.0)
        as_share = share * (1 - share)
        mixed = _TRUSTED * variance / largest**2 + (1 - _TRUSTED) * as_share
        found = wilson(share, num_items * as_share / mixed if mixed > 0 else num_items)
        return Interval(value=mean, low=found.low * largest, high=found.high * largest)
    t = _t(num_items - 1)
    skewed = float(((values - mean) ** 3).mean()) / (6 * variance * num_items) if variance > 0 else 0.0
    ends = mean**2 + (float(values.max()) - mean) ** 2
    spread = t * math.sqrt((variance * num_items + ends) / (num_items + 1) / (num_items + 2))
    middle = mean + skewed * (1 + 2 * t**2)
    return Interval(value=mean, low=max(middle - spread, 0.0), high=middle + spread)


def _t(freedom: int) -> float:
    return _T[max((known for known in _T if known <= freedom), default=1)]
