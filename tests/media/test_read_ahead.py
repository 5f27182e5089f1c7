"""Reading ahead changes when things are read, and nothing else."""

from __future__ import annotations

import threading

import pytest

from vlinstruct.media.read_ahead import read_ahead


@pytest.mark.parametrize("num_ahead", [1, 2, 16])
def test_everything_comes_in_order(num_ahead: int) -> None:
    assert list(read_ahead(range(50), lambda item: item * item, num_ahead=num_ahead)) == [i * i for i in range(50)]


def test_nothing_is_read_of_nothing() -> None:
    assert list(read_ahead([], str, num_ahead=1)) == []


def test_the_next_item_is_read_while_the_caller_works() -> None:
    second = threading.Event()
    results = read_ahead([1, 2], lambda item: second.set() if item == 2 else None, num_ahead=1)
    next(results)
    assert second.wait(timeout=10)


def test_no_more_is_read_than_was_asked_for() -> None:
    read: list[int] = []
    third = threading.Event()

    def take(item: int) -> int:
        read.append(item)
        if item == 2:
            third.set()
        return item

    results = read_ahead(range(100), take, num_ahead=2)
    next(results)
    assert third.wait(timeout=10)
    results.close()
    assert len(read) <= 4


def test_an_error_comes_in_its_place() -> None:
    results = read_ahead([2, 1, 0], lambda item: 2 // item, num_ahead=3)
    assert (next(results), next(results)) == (1, 2)
    with pytest.raises(ZeroDivisionError):
        next(results)
