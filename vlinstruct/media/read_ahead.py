"""Reads the next items in a thread while the caller works on the present one: pictures decode beside the model.

A daemon thread and not concurrent.futures, whose threads the interpreter waits for at its end: a read that hangs, of a
pipe or a dead network disk, would keep a finished program alive.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class _Done(Generic[R]):
    value: R


def read_ahead(items: Iterable[T], read: Callable[[T], R], *, num_ahead: int) -> Iterator[R]:
    """Yields what `read` returns for every item, in order.

    The thread dies with the program, even if it waits for a pipe that nobody writes to.

    Args:
        items: iterated in the thread.
        read: called in the thread; what it raises is raised here, in the item's place.
        num_ahead: most results that wait for the caller, at least 1.

    >>> list(read_ahead([1, 2, 3], str, num_ahead=2))
    ['1', '2', '3']
    """
    results: SimpleQueue[_Done[R] | BaseException | None] = SimpleQueue()
    places, is_left = threading.Semaphore(num_ahead), threading.Event()

    def fill() -> None:
        try:
            for item in items:
                places.acquire()
                if is_left.is_set():
                    return
                results.put(_Done(read(item)))
            results.put(None)
        except BaseException as error:  # the caller's, wherever it happened
            results.put(error)

    threading.Thread(target=fill, daemon=True).start()
    try:
        while (result := results.get()) is not None:
            if isinstance(result, BaseException):
                raise result
            places.release()
            yield result.value
    finally:
        is_left.set()
        places.release()
