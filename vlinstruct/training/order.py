"""In which order samples are learned: a function of seed and epoch alone, so that a position is one number.

Samples of like length share a batch, which saves padding; which batch comes when is drawn. No torch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

_BATCHES_SORTED_TOGETHER = 50
_GROUPS = 7  # by answer, each then sorted by prompt: about the root of the batches, so that both lengths are alike


def epoch_batches(lengths: Sequence[tuple[int, int]], batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Returns an epoch's batches of sample indices; each sample is in one of them, one may be smaller.

    Args:
        lengths: of every sample's prompt and answer, in tokens.
        batch_size: samples of one update.
        seed: of the training.
        epoch: from 0.

    >>> epoch_batches([(5, 1), (1, 1), (5, 1), (1, 1)], 2, seed=0, epoch=0)
    [[3, 1], [2, 0]]
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    width = _BATCHES_SORTED_TOGETHER * batch_size
    batches: list[list[int]] = []
    for start in range(0, len(order), width):
        alike = _by_length(order[start : start + width], lengths, batch_size)
        batches += [alike[first : first + batch_size] for first in range(0, len(alike), batch_size)]
    rng.shuffle(batches)
    return batches


def _by_length(indices: Sequence[int], lengths: Sequence[tuple[int, int]], batch_size: int) -> list[int]:
    by_answer = sorted(indices, key=lambda index: lengths[index][1])
    width = max(1, round(len(indices) / batch_size / _GROUPS)) * batch_size
    groups = [by_answer[start : start + width] for start in range(0, len(by_answer), width)]
    return [index for group in groups for index in sorted(group, key=lambda index: lengths[index][0])]


def num_batches(num_samples: int, batch_size: int) -> int:
    """Returns how many batches an epoch has."""
    return -(-num_samples // batch_size)


def micro_batches(batch: Sequence[int], rows: int, num_processes: int) -> list[list[list[int]]]:
    """Splits the batch of an update: a list of micro-batches, each a list of every process' samples.

    A process may have none in the last one; neighbours, which are of like length, go through the model together.

    >>> micro_batches([1, 2, 3, 4, 5], rows=1, num_processes=2)
    [[[1], [2]], [[3], [4]], [[5], []]]
    """
    width = rows * num_processes
    together = [batch[start : start + width] for start in range(0, len(batch), width)]
    return [[list(part[rank::num_processes]) for rank in range(num_processes)] for part in together]
