"""Area under the ROC curve: how often a positive item scores above a negative one.

In: a label and a score per item. Out: 0 to 1, equal to scikit-learn's `roc_auc_score`.

Legend: N items.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlinstruct.errors import DataError, ScoreError

_WHAT = "cannot compute ROC AUC"


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Returns the share of pairs of a positive and a negative item with the positive above; a tie counts half.

    Args:
        labels: 1 or true for a positive item, 0 or false for a negative one, (N,).
        scores: higher for what looks positive, in any unit, (N,).

    Returns:
        0 to 1; 0.5 is chance.

    Raises:
        DataError: labels and scores do not go together, a label is no 0 or 1, or all items are of one class.
        ScoreError: a score is not finite.

    >>> roc_auc([1, 0, 1, 0], [0.9, 0.1, 0.4, 0.4])
    0.875
    """
    marks, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    _check(marks, values)
    is_positive = marks == 1
    num_positive = int(is_positive.sum())
    num_negative = len(marks) - num_positive
    # Mann and Whitney's U: the positives' ranks, less what they would be among themselves.
    pairs_won = _middle_ranks(values)[is_positive].sum() - num_positive * (num_positive + 1) / 2
    return float(pairs_won / (num_positive * num_negative))


def _middle_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, ascending; equal values share the middle of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _check(labels: NDArray[np.generic], scores: NDArray[np.float64]) -> None:
    if labels.ndim != 1 or labels.shape != scores.shape:
        why = f"labels of shape {labels.shape}, scores of shape {scores.shape}"
        raise DataError.at(_WHAT, "labels", why, "Give one label and one score per item")
    if not np.isin(labels, (0, 1)).all():
        raise DataError.at(_WHAT, "labels", "one is neither 0 nor 1", "Use 1 for positive items, else 0")
    if len(np.unique(labels)) < 2:
        why = f"all {len(labels)} items are of one class"
        raise DataError.at(_WHAT, "labels", why, "Evaluate items of both classes", code="one_class")
    if not np.isfinite(scores).all():
        why = f"score {int(np.argmin(np.isfinite(scores)))} is not finite"
        raise ScoreError.at(_WHAT, "scores", why, "Compute in float32, or leave the item out")
