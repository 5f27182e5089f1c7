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
    if marks.ndim != 1 or marks.shape != values.shape:
        why = f"labels of shape {marks.shape}, scores of shape {values.shape}"
        raise DataError.at(_WHAT, "labels", why, "Give one label and one score per item")
    if not np.isin(marks, (0, 1)).all():
        raise DataError.at(_WHAT, "labels", "one is neither 0 nor 1", "Use 1 for positive items, else 0")
    if len(np.unique(marks)) < 2:
        why = f"all {len(marks)} items are of one class"
        raise DataError.at(_WHAT, "labels", why, "Evaluate items of both classes", code="one_class")
    if not np.isfinite(values).all():  # NaN would sort behind every number, as the best score
        why = f"score {int(np.argmin(np.isfinite(values)))} is not finite"
        raise ScoreError.at(_WHAT, "scores", why, "Compute in float32, or leave the item out")
    is_positive = marks == 1
    num_positive = int(is_positive.sum())
    num_negative = len(marks) - num_positive
    ranks = middle_ranks(values)
    # Mann and Whitney's U: the positives' ranks, less what they would be among themselves. It sorts N values, where
    # counting pairs would compare all of them: the table asks for 2,001 areas a cell.
    num_pairs_won = ranks[is_positive].sum() - num_positive * (num_positive + 1) / 2
    return float(num_pairs_won / (num_positive * num_negative))


def middle_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the scores' ranks from 1, ascending; equal ones share the middle of theirs, so that a tie counts half.

    >>> middle_ranks(np.array([0.9, 0.1, 0.4, 0.4])).tolist()
    [4.0, 1.0, 2.5, 2.5]
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks
