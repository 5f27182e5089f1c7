"""Listens to modules while a model runs, so that its own code need not know what is learned about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Record = Callable[[nn.Module, tuple[Any, ...], Any], None]


@contextmanager
def recording(modules: Iterable[nn.Module], record: Record) -> Iterator[None]:
    """Calls `record` with module, inputs and output whenever one of the modules has run, until the block ends."""
    handles = [module.register_forward_hook(record) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
