"""In which order samples are learned: a function of seed and epoch alone, so that a position is one number.

Samples of like length share a batch, which saves padding; which batch comes when is drawn. No torch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

_BATCHES_SORTED_TOGETHER = 50


def epoch_batches(lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Returns an epoch's batches of sample indices; each sample is in one of them, the last drawn may be smaller.

    Args:
        lengths: of every sample, in tokens.
        batch_size: samples of one update.
        seed: of the training.
        epoch: from 0.

    >>> epoch_batches([5, 1, 5, 1], 2, seed=0, epoch=0)
    [[3, 1], [2, 0]]
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    width = _BATCHES_SORTED_TOGETHER * batch_size
    batches: list[list[int]] = []
    for start in range(0, len(order), width):
        alike = sorted(order[start : start + width], key=lambda index: lengths[index])
        batches += [alike[first : first + batch_size] for first in range(0, len(alike), batch_size)]
    rng.shuffle(batches)
    return batches


def num_batches(num_samples: int, batch_size: int) -> int:
    """Returns how many batches an epoch has."""
    return -(-num_samples // batch_size)
