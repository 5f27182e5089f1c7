"""What update `n` learns and at which rate: functions of `n` and the settings alone, so that a position is one number.

Samples of like length share a batch, which saves padding; which batch comes when is drawn. No torch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from vlinstruct.training.settings import TrainingSettings

_FIRST_RATE = 1e-8
# Sorting the whole epoch would show the lengths in one order, and leave too little to chance which samples meet.
_BATCHES_SORTED_TOGETHER = 50
_GROUPS = 7  # by answer, each then sorted by prompt: about the root of the batches, so that both lengths are alike


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Sets of samples that are learned together, numbered one behind the other.

    An epoch has `round(weight x size)` samples of each. They continue where the epoch before ended in a sequence of
    passes over the set, each in an order of its own: so at weight 0.5 every sample is learned once in two epochs, at 2
    twice in each, and at 1 once.

    Args:
        sizes: samples of each set.
        weights: how often one of a set is learned in an epoch.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def counts(self) -> list[int]:
        """How many samples of each set an epoch has."""
        pairs = zip(self.sizes, self.weights, strict=True)
        return [min(size, 1) if weight * size < 1 else round(weight * size) for size, weight in pairs]

    def indices(self, *, seed: int, epoch: int) -> list[int]:
        """Returns an epoch's samples, in the order of the sets; of weights of 1 all, in their own order.

        >>> mixture = Mixture(sizes=(3, 4), weights=(1, 0.5))
        >>> [mixture.indices(seed=0, epoch=epoch) for epoch in (0, 1)]
        [[0, 1, 2, 3, 6], [0, 1, 2, 4, 5]]
        """
        indices: list[int] = []
        first = 0
        for number, (size, count) in enumerate(zip(self.sizes, self.counts, strict=True)):
            begin, end = epoch * count, (epoch + 1) * count
            chosen: list[int] = []
            for turn in range(begin // max(1, size), -(-end // max(1, size))):
                order = list(range(size))
                random.Random(f"{seed}/{number}/{turn}").shuffle(order)
                chosen += order[max(0, begin - turn * size) : end - turn * size]
            indices += [first + index for index in sorted(chosen)]
            first += size
        return indices


def num_steps(num_samples: int, settings: TrainingSettings, num_processes: int = 1) -> int:
    """Returns how many updates a training has, whose epochs have so many samples."""
    whole = settings.num_train_epochs * num_batches(num_samples, settings.batch_size(num_processes))
    return whole if settings.max_steps is None else min(whole, settings.max_steps)


def learning_rate_at(step: int, num_steps: int, settings: TrainingSettings) -> float:
    """Returns the rate of update `step`, from 0: linear warm-up, then a cosine to 0 at `num_steps`.

    >>> settings = TrainingSettings(learning_rate=1.0, warmup_steps=2)
    >>> [round(learning_rate_at(step, 6, settings), 3) for step in range(7)]
    [0.0, 0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < settings.warmup_steps:
        return _FIRST_RATE + (settings.learning_rate - _FIRST_RATE) * step / settings.warmup_steps
    share = (step - settings.warmup_steps) / max(1, num_steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def highest_learning_rate(num_steps: int, settings: TrainingSettings) -> float:
    """Returns the highest rate of any update; less than asked for where the training ends within the warm-up.

    >>> [highest_learning_rate(n, TrainingSettings(learning_rate=1.0, warmup_steps=4)) for n in (3, 40)]
    [0.500000005, 1.0]
    """
    return learning_rate_at(max(0, min(settings.warmup_steps, num_steps - 1)), num_steps, settings)


def epoch_batches(
    lengths: Sequence[tuple[int, int]],
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    indices: Sequence[int] | None = None,
) -> list[list[int]]:
    """Returns an epoch's batches of sample indices; each sample is in one of them, one may be smaller.

    Args:
        lengths: of every sample's prompt and answer, in tokens.
        batch_size: samples of one update.
        seed: of the training.
        epoch: from 0.
        indices: the epoch's samples; all, once, if None.

    >>> epoch_batches([(5, 1), (1, 1), (5, 1), (1, 1)], 2, seed=0, epoch=0)
    [[3, 0], [1, 2]]
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)) if indices is None else indices)
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
