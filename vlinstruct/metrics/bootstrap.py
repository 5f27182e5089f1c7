"""Bootstrap: how far a metric would move on another draw of items.

In: how many items there are, and what a metric is on each resample of them. Out: the metric with its 95 % interval,
from the 2.5th to the 97.5th percentile of its resamples (Efron and Tibshirani 1993, chapter 13). A share of items has
Wilson's interval instead: five right answers of five resample to five of five every time, which says nothing of the
sixth.

A resample draws whole items, with replacement. One seed gives the same rows for every model and every way to choose, so
that what is compared is compared on the same items (paired): subtract the values resample by resample, then ask for the
interval. Items are taken to be independent. CIDEr's per-item scores are resampled as they are: the document frequencies
stay those of the whole set.

Legend: N items, R resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# An interval's end rests on the 50 outermost of them. No answer is scored again for a resample: its items' scores are
# looked up and averaged.
NUM_RESAMPLES = 2_000
_PERCENTILES = (2.5, 97.5)
_Z = 1.959963984540054  # the normal distribution's 97.5th percentile


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A metric and where 95 % of its resamples lie.

    Args:
        value: the metric on the items themselves.
        low: the 2.5th percentile of the resamples; NaN where it exists on none of them.
        high: the 97.5th percentile.
    """

    value: float
    low: float
    high: float


def resampled_rows(num_items: int, seed: int, num_resamples: int = NUM_RESAMPLES) -> NDArray[np.int64]:
    """Returns which items take part, (1 + R, N): first all of them, then those of every resample.

    >>> resampled_rows(3, seed=0, num_resamples=2).tolist()
    [[0, 1, 2], [2, 1, 1], [0, 0, 0]]
    """
    resamples = np.random.default_rng(seed).integers(num_items, size=(num_resamples, num_items))
    # The items themselves are the first row, so that a value and its resamples come from one formula.
    return np.concatenate([np.arange(num_items)[None], resamples])


def interval(values: NDArray[np.float64]) -> Interval:
    """Returns the value on the items themselves with its interval.

    A resample on which the metric does not exist is left out: relative to a model that has no answer right on it, no
    share does. Counting it as 0 would move the interval by what nobody measured.

    Args:
        values: the metric on the rows of `resampled_rows`, (1 + R,).

    >>> interval(np.array([2.0, 1.0, 3.0, np.nan]))
    Interval(value=2.0, low=1.05, high=2.95)
    >>> interval(np.array([np.nan, 1.0, 3.0]))  # what does not exist on the items themselves has no interval
    Interval(value=nan, low=nan, high=nan)
    """
    if not np.isfinite(values[0]):
        return Interval(value=float(values[0]), low=np.nan, high=np.nan)
    resampled = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(resampled, _PERCENTILES) if len(resampled) else (np.nan, np.nan)
    return Interval(value=float(values[0]), low=float(low), high=float(high))


def wilson(share: float, num_items: float) -> Interval:
    """Returns a share of independent items with Wilson's 95 % interval (Wilson 1927; Brown, Cai and DasGupta 2001).

    Args:
        share: 0 to 1.
        num_items: of how many, at least 1; a fraction where scores spread less than shares do.

    >>> five_of_five = wilson(1.0, 5)
    >>> round(five_of_five.low, 3), five_of_five.high
    (0.566, 1.0)
    """
    squared = _Z**2
    middle = (share + squared / (2 * num_items)) / (1 + squared / num_items)
    spread = _Z * math.sqrt(share * (1 - share) / num_items + squared / (4 * num_items**2)) / (1 + squared / num_items)
    # Exact at the ends, where rounding would leave 0.9999999999999999.
    low, high = max(0.0, middle - spread) if share > 0 else 0.0, min(1.0, middle + spread) if share < 1 else 1.0
    return Interval(value=share, low=low, high=high)
