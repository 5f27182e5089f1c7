"""Keeps Pillow's warnings, its log lines and libtiff's off the terminal, from any number of threads at once."""

from __future__ import annotations

import logging
import threading
import warnings
from functools import cache

from PIL import _imaging


class _QuietPillow:
    """Ignores Pillow's warnings while any thread decodes; one `catch_warnings` per thread would undo the others'."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_active = 0
        self._saved: warnings.catch_warnings[None] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._num_active == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
            self._num_active += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_active -= 1
            if self._num_active == 0 and self._saved is not None:
                self._saved.__exit__(None, None, None)


quiet_pillow = _QuietPillow()


@cache
def silence_lines() -> None:
    """Stops Pillow's logger and libtiff from writing lines of their own about damaged files to stderr.

    Both raise an error all the same. Pillow 13 turns off libtiff's warnings but not its errors, and has no call for it;
    where a build of Pillow hides libtiff, its lines stay.
    """
    import ctypes

    # A logger without any handler prints its errors; one that the user has set up keeps getting them.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    try:
        # Looked up through Pillow's own library, so that it is the libtiff that Pillow uses.
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)
    except (AttributeError, OSError):
        return
