"""A training that is asked to stop ends its update, saves and leaves; asked again, it ends at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@dataclass
class StopRequest:
    """Which signal has come; None so far."""

    number: int | None = None

    def __call__(self) -> bool:
        return self.number is not None


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Listens to SIGINT, SIGTERM and SIGHUP; a second one does what it always does."""
    request = StopRequest()

    def listen(number: int, frame: FrameType | None) -> None:
        request.number = number
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, listen) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
