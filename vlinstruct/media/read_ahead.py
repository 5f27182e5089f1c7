"""Work beside the caller's: pictures decode beside the model, and many items wait for a server at the same time.

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


def side_by_side(items: Iterable[T], work: Callable[[T], R], *, num_threads: int) -> Iterator[R]:
    """Yields what `work` returns for every item, in order, working on several at the same time.

    Where the caller is interrupted (Ctrl-C) while it waits, what is finished by then is yielded first: nothing that was
    paid for is lost. Threads die with the program.

    Args:
        items: iterated in one thread at a time, at most four times `num_threads` ahead of the caller.
        work: called in threads; what it raises is raised here, in the item's place.
        num_threads: at least 1.

    >>> list(side_by_side([1, 2, 3], str, num_threads=2))
    ['1', '2', '3']
    """
    numbered, taking = enumerate(items), threading.Lock()
    results: SimpleQueue[tuple[int, _Done[R] | BaseException | None]] = SimpleQueue()
    places, is_left = threading.Semaphore(4 * num_threads), threading.Event()
    ready: dict[int, _Done[R] | BaseException] = {}

    def run() -> None:
        while True:
            places.acquire()
            if is_left.is_set():
                return
            with taking:
                try:
                    taken = next(numbered, None)
                except BaseException as error:  # of the items themselves: the caller's, at the end
                    results.put((-1, error))
                    return
            if taken is None:
                results.put((-1, None))
                return
            place, item = taken
            try:
                results.put((place, _Done(work(item))))
            except BaseException as error:
                results.put((place, error))

    for _ in range(num_threads):
        threading.Thread(target=run, daemon=True).start()
    place, num_running, broken = 0, num_threads, None
    try:
        while num_running:
            finished, result = results.get()
            if finished < 0:
                num_running -= 1
                broken = broken or result
                continue
            assert result is not None
            ready[finished] = result
            while place in ready:
                result = ready.pop(place)
                place += 1
                if isinstance(result, BaseException):
                    raise result
                places.release()
                yield result.value
        if isinstance(broken, BaseException):
            raise broken
    except GeneratorExit:
        raise
    except BaseException:
        while not results.empty():
            finished, result = results.get()
            if result is not None:
                ready[finished] = result
        for _, result in sorted(ready.items(), key=lambda item: item[0]):
            if isinstance(result, _Done):
                yield result.value
        raise
    finally:
        is_left.set()
        for _ in range(num_threads):
            places.release()
