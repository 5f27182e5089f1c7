"""Batches in their order, drawn ahead by other processes where drawing would be waited for.

On a CPU drawing is a small part of a training step; an accelerator would wait for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

from vlinstruct.mini.batches import Batch, BatchMaker, BatchShape
from vlinstruct.mini.reading import LanguageModelName

_AHEAD_PER_WORKER = 2
_maker: BatchMaker | None = None


def _start_worker(seed: int, fonts: Sequence[str] | None, language_model: LanguageModelName) -> None:
    global _maker
    _maker = BatchMaker(seed, fonts, language_model)


def _make(index: int, shape: BatchShape) -> Batch:
    assert _maker is not None
    return _maker.make(index, shape)


class BatchStream:
    """One training process's batches.

    Args:
        seed: of the whole training.
        first: index of step 0's batch.
        stride: between the indices of two steps: the number of training processes.
        workers: processes that draw ahead; with none, a batch is made when it is asked for.
        fonts: file names to print with in place of the training fonts.
        language_model: the kind that reads the batches.
    """

    def __init__(
        self,
        seed: int,
        *,
        first: int,
        stride: int,
        workers: int,
        fonts: Sequence[str] | None = None,
        language_model: LanguageModelName = "t5",
    ) -> None:
        self.first, self.stride = first, stride
        self.ahead = _AHEAD_PER_WORKER * workers
        self.pending: deque[tuple[int, Future[Batch]]] = deque()
        self.maker = None if workers else BatchMaker(seed, fonts, language_model)
        self.pool = None
        if workers:
            given = (seed, fonts, language_model)
            self.pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, given)

    def start(self, step: int, shape: BatchShape) -> None:
        """Waits until the workers have drawn a first batch."""
        if self.pool is not None:
            self._order(self.pool, step, shape)
            self.pending[0][1].result()

    def batch(self, step: int, shape: BatchShape) -> Batch:
        """Returns a step's batch; the next ones are ordered in the same shape, which then has changed a little late."""
        if self.pool is None:
            assert self.maker is not None
            return self.maker.make(self._index(step), shape)
        self._order(self.pool, step, shape)
        return self.pending.popleft()[1].result()

    def _order(self, pool: ProcessPoolExecutor, step: int, shape: BatchShape) -> None:
        if not self.pending or self.pending[0][0] != step:
            self.pending.clear()
        for later in range(step + len(self.pending), step + self.ahead):
            self.pending.append((later, pool.submit(_make, self._index(later), shape)))

    def _index(self, step: int) -> int:
        return self.first + step * self.stride

    def close(self) -> None:
        """Ends the workers."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
