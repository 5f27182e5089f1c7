"""Calls from many threads become batches of one backend: what waits together goes through the model together.

While a batch runs, new calls gather; the next batch takes all that are alike. So batches grow with the load, and nobody
waits for a timer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vlinstruct.backend import Backend, Row, Seen, Written
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Failed, TokenCount, TokenScores

if TYPE_CHECKING:
    from vlinstruct.values import Media


LEFT: ContextVar[threading.Event | None] = ContextVar("LEFT", default=None)
"""Set where nobody waits any more for what the present request asks the model."""


class LeftError(Exception):
    """Nobody waits any more for this call."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
    """A call that waits.

    Args:
        kind: calls of the same kind may be one: the method, and what it is told beside its rows.
        rows: its items.
        run: does the work for the rows of several calls.
        left: set where nobody waits for it any more.
        future: gets the outcomes of this call's rows.
    """

    kind: Hashable
    rows: Sequence[Any]
    run: Callable[[Sequence[Any]], list[Any]]
    left: threading.Event | None
    future: Future[list[Any]] = field(default_factory=Future)


class MergingBackend(Backend):
    """Another backend whose waiting calls are merged; one that works on several calls itself, as a server does, gets
    them as they come. Of a request that nobody waits for any more, no further call is begun.

    One thread loads it and does all of its work: where PyTorch's threads were started for one thread and another one
    computes, both sets share the cores, and mini takes 36 ms in place of 12 on two of them.

    Args:
        load: returns the backend that does the work.
        batch_size: most rows of a batch; a call that has more goes alone.
    """

    def __init__(self, load: Callable[[], Backend], *, batch_size: int = 32) -> None:
        self.batch_size = batch_size
        self._waiting: deque[_Call] = deque()
        self._changed = threading.Condition()
        self._is_closed = self._is_streaming = False
        loaded: Future[Backend] = Future()
        threading.Thread(target=self._work, args=(load, loaded), name="vlinstruct-model", daemon=True).start()
        self.backend = loaded.result()
        self.identity, self.abilities = self.backend.identity, self.backend.abilities
        self._merges = self.abilities.num_in_flight == 1

    @property
    def num_waiting(self) -> int:
        """How many calls wait."""
        return len(self._waiting)

    def see(self, media: Sequence[Media]) -> list[Seen | Failed]:
        return self._call("see", media, self.backend.see)

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        return self._call(("write", settings), rows, lambda rows: self.backend.write(rows, settings))

    def score(
        self,
        rows: Sequence[Row],
        targets: Sequence[Sequence[str]],
        *,
        with_end: bool = True,
        num_first: int | None = None,
    ) -> list[list[TokenScores] | Failed]:
        def run(pairs: Sequence[tuple[Row, Sequence[str]]]) -> list[list[TokenScores] | Failed]:
            return self.backend.score(
                [row for row, _ in pairs], [of_row for _, of_row in pairs], with_end=with_end, num_first=num_first
            )

        return self._call(("score", with_end, num_first), list(zip(rows, targets, strict=True)), run)

    def stream(self, row: Row, settings: GenerationSettings) -> Iterator[str | Written]:
        if not self._merges:
            yield from self.backend.stream(row, settings)
            return
        # Piece by piece only while nobody waits: a stream is a batch of one.
        with self._changed:
            is_alone = not self._waiting and not self._is_streaming
            self._is_streaming |= is_alone
        if not is_alone:
            yield from super().stream(row, settings)
            return
        try:
            yield from self.backend.stream(row, settings)
        finally:
            self._is_streaming = False

    def num_tokens(self, rows: Sequence[Row]) -> list[TokenCount | None]:
        return self.backend.num_tokens(rows)

    def knows(self, seen: Seen) -> bool:
        return self.backend.knows(seen)

    def prepare(self, medium: Media) -> Media:
        return self.backend.prepare(medium)

    def close(self) -> None:
        """Lets the batch at work end; calls that wait fail."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _call(self, kind: Hashable, rows: Sequence[Any], run: Callable[[Sequence[Any]], list[Any]]) -> list[Any]:
        if not rows:
            return []
        left = LEFT.get()
        if self._is_closed or (left is not None and left.is_set()):
            raise LeftError
        if not self._merges:
            return run(rows)
        call = _Call(kind=kind, rows=rows, run=run, left=left)
        with self._changed:
            if self._is_closed:
                raise LeftError
            self._waiting.append(call)
            self._changed.notify()
        return call.future.result()

    def _work(self, load: Callable[[], Backend], loaded: Future[Backend]) -> None:
        try:
            loaded.set_result(load())
        except BaseException as error:
            loaded.set_exception(error)
            return
        while calls := self._next():
            rows = [row for call in calls for row in call.rows]
            try:
                outcomes = iter(calls[0].run(rows))
                for call in calls:
                    call.future.set_result([next(outcomes) for _ in call.rows])
            except Exception as error:
                if len(calls) == 1:
                    calls[0].future.set_exception(error)
                else:  # what concerns one call must not end the others
                    for call in calls:
                        self._alone(call)

    def _alone(self, call: _Call) -> None:
        try:
            call.future.set_result(call.run(call.rows))
        except Exception as error:
            call.future.set_exception(error)

    def forget_left(self) -> None:
        """Drops the calls that nobody waits for any more."""
        with self._changed:
            self._drop_left()

    def _drop_left(self) -> None:
        kept = deque[_Call]()
        for call in self._waiting:
            if call.left is not None and call.left.is_set():
                call.future.set_exception(LeftError())
            else:
                kept.append(call)
        self._waiting = kept

    def _next(self) -> list[_Call]:
        """Returns the calls of the next batch: the one that waits longest, and those like it; none at the end."""
        with self._changed:
            self._drop_left()
            while not self._waiting and not self._is_closed:
                self._changed.wait()
                self._drop_left()
            if self._is_closed:
                for call in self._waiting:
                    call.future.set_exception(LeftError())
                return []
            first = self._waiting.popleft()
            calls, num_rows = [first], len(first.rows)
            others: deque[_Call] = deque()
            for call in self._waiting:
                if call.kind == first.kind and num_rows + len(call.rows) <= self.batch_size:
                    calls.append(call)
                    num_rows += len(call.rows)
                else:
                    others.append(call)
            self._waiting = others
            return calls
