"""Bootstrap: how far a metric would move on another draw of items.

In: per-item scores. Out: the metric with its 95 % interval, from the 2.5th to the 97.5th percentile of its resamples
(Efron and Tibshirani 1993, chapter 13).

A resample draws whole items, with replacement: all arrays take the same rows, so two models are compared on the same
items (paired). Items are taken to be independent. CIDEr's per-item scores are resampled as they are: the document
frequencies stay those of the whole set.

Legend: N items, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlinstruct.errors import DataError, ScoreError

NUM_RESAMPLES = 2_000
_PERCENTILES = (2.5, 97.5)
_MAX_INDICES_AT_ONCE = 1_000_000
_WHAT = "cannot compute an interval"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A metric and where 95 % of its resamples lie.

    Args:
        value: the metric on the items themselves.
        low: the 2.5th percentile of the resamples.
        high: the 97.5th percentile.
    """

    value: float
    low: float
    high: float


def mean_interval(scores: ArrayLike, *, generator: np.random.Generator, num_resamples: int = NUM_RESAMPLES) -> Interval:
    """Returns the mean of per-item scores with its interval.

    Args:
        scores: one per item, (N,).
        generator: a seeded generator, which makes the interval the same in every run.
        num_resamples: R.

    Raises:
        DataError: there are no items.
        ScoreError: a score is not finite.
    """
    (values,) = _columns([scores])
    if not np.isfinite(values).all():
        index = int(np.argmin(np.isfinite(values)))
        raise ScoreError.at(_WHAT, f"item {index}", "its score is not finite", "Leave the item out")
    means = [values[rows].mean(axis=1) for rows in _resamples(len(values), num_resamples, generator)]
    return _interval(float(values.mean()), np.concatenate(means))


def mean_difference_interval(
    scores: ArrayLike, baseline: ArrayLike, *, generator: np.random.Generator, num_resamples: int = NUM_RESAMPLES
) -> Interval:
    """Returns the mean difference of two models' scores on the same items (paired), above 0 where the first is higher.

    Args:
        scores: the first model's score per item, (N,).
        baseline: the second model's, in the same order, (N,).
        generator: a seeded generator.
        num_resamples: R.

    Raises:
        DataError: there are no items, or not as many of one as of the other.
        ScoreError: a difference is not finite.
    """
    ours, theirs = _columns([scores, baseline])
    differences = ours.astype(np.float64) - theirs.astype(np.float64)
    return mean_interval(differences, generator=generator, num_resamples=num_resamples)


def statistic_interval(
    statistic: Callable[..., float],
    *columns: ArrayLike,
    generator: np.random.Generator,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Returns any statistic of per-item arrays with its interval, e.g. the difference of two models' ROC AUC.

    A resample on which the statistic raises DataError is left out: the AUC of one class only does not exist.

    Args:
        statistic: takes the arrays in the order given, all of them drawn at the same rows, and returns one number.
        columns: per-item arrays of any type, (N, ...).
        generator: a seeded generator.
        num_resamples: R.

    Raises:
        DataError: the arrays are not of one length, the statistic refuses the items themselves, or it refuses more than
            half of the resamples.
    """
    arrays = _columns(columns)
    value = statistic(*arrays)
    drawn = _resamples(len(arrays[0]), num_resamples, generator)
    results = [_defined(statistic, [array[rows] for array in arrays]) for chunk in drawn for rows in chunk]
    defined = [result for result in results if result is not None]
    if 2 * len(defined) < num_resamples:
        why = f"the metric exists on {len(defined)} of {num_resamples} resamples"
        raise DataError.at(_WHAT, "items", why, "Evaluate more items")
    return _interval(float(value), np.array(defined))


def _defined(statistic: Callable[..., float], arrays: Sequence[NDArray[np.generic]]) -> float | None:
    try:
        return statistic(*arrays)
    except DataError:
        return None


def _columns(columns: Sequence[ArrayLike]) -> list[NDArray[np.generic]]:
    arrays = [np.asarray(column) for column in columns]
    lengths = [len(array) for array in arrays]
    if not arrays or len(set(lengths)) > 1 or not lengths[0]:
        why = f"arrays of {' and '.join(map(str, lengths)) or 'no'} items"
        raise DataError.at(_WHAT, "items", why, "Give every array the same items, one at least")
    return arrays


def _resamples(num_items: int, num_resamples: int, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Draws the rows of R resamples, a few (., N) at a time: all at once would fill the memory at many items."""
    at_once = max(_MAX_INDICES_AT_ONCE // num_items, 1)
    for start in range(0, num_resamples, at_once):
        yield generator.integers(num_items, size=(min(at_once, num_resamples - start), num_items))


def _interval(value: float, resampled: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(resampled, _PERCENTILES)
    return Interval(value=value, low=float(low), high=float(high))
