"""What goes to the terminal: data to stdout, talk to stderr, nothing that could move a cursor."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from vlinstruct.errors import ResourceError, printable, shortened

_MAX_LINE = 300


def show(text: str) -> None:
    """Writes data to stdout; escapes what is not printable when stdout is a terminal.

    Raises:
        ResourceError: stdout does not take it, e.g. because its disk is full.
        BrokenPipeError: nobody reads any more (`| head`).
    """
    shown = printable(text, keep="\n\t") if sys.stdout.isatty() else text
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(shown.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise ResourceError.at("cannot write output", "stdout", why, "Free some space") from error


def show_piece(text: str) -> None:
    """Writes a part of a line to stdout, which is a terminal."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(printable(text, keep="\n\t").encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def show_record(record: Mapping[str, object]) -> None:
    """Writes a record to stdout as one line of JSON, in UTF-8 whatever the terminal's encoding.

    Raises:
        ResourceError: stdout does not take it.
        BrokenPipeError: nobody reads any more.
    """
    from vlinstruct.records.output import RecordWriter

    RecordWriter(sys.stdout.buffer).write(record)


def say(kind: Literal["error", "notice", "done", "progress"], message: str) -> None:
    """Writes one line of talk to stderr: `error: ...`."""
    line = f"{kind}: {shortened(message, _MAX_LINE - len(kind) - 2)}"
    print(line.encode("ascii", "backslashreplace").decode() if _is_narrow() else line, file=sys.stderr)


def _is_narrow() -> bool:
    return "utf" not in (sys.stderr.encoding or "").lower()


class Talk:
    """Says each notice once, or nothing when quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.said: set[str] = set()

    def notice(self, message: str) -> None:
        """Says something a user should know."""
        if not self.quiet and message not in self.said:
            self.said.add(message)
            say("notice", message)

    def done(self, message: str) -> None:
        """Says how it went."""
        if not self.quiet:
            say("done", message)

    def progress(self, message: str) -> None:
        """Says how far it is."""
        if not self.quiet:
            say("progress", message)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Says what the library logs as a warning, in place of logging's own format."""
        logger, handler = logging.getLogger("vlinstruct"), _Handler(self)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


class _Handler(logging.Handler):
    def __init__(self, talk: Talk) -> None:
        super().__init__(level=logging.WARNING)
        self.talk = talk

    def emit(self, record: logging.LogRecord) -> None:
        self.talk.notice(record.getMessage())


@contextmanager
def progress(num_items: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """Shows a progress bar on stderr when that is a terminal; gives the function to call after each item."""
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    # Not at the top: rich takes longer to import than the rest of the command line.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=num_items)
        yield lambda: bar.advance(task)


@contextmanager
def ctrl_c_interrupts() -> Iterator[None]:
    """Makes Ctrl-C raise KeyboardInterrupt in place of ending the process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
