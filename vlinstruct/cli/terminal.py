"""What goes to the terminal: data to stdout, talk to stderr, nothing that could move a cursor.

A model's answer and a file's name come from strangers: an escape sequence in them, shown raw on a terminal, could hide
or rewrite what stands there. A pipe gets answers as they are, and reports (doctor's, evaluate's tables) escaped.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal

from vlinstruct.errors import ResourceError, printable, shortened

if TYPE_CHECKING:
    from rich.console import Console

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_MAX_LINE = 300  # a message may quote a path or a text of any length
# Of a training's 100,000 pictures and instructions every one may be remarked upon.
_MANY = {"vlinstruct.media.images": "pictures", "vlinstruct.backends.instructblip.tokenization": "instructions"}
_MAX_OF_MANY = 10


def show(text: str) -> None:
    """Writes data to stdout; escapes what is not printable when stdout is a terminal.

    Raises:
        ResourceError: stdout does not take it, e.g. because its disk is full.
        BrokenPipeError: nobody reads any more (`| head`).
    """
    printed((printable(text, keep="\n\t") if sys.stdout.isatty() else text) + "\n")


def printed(text: str) -> None:
    """Writes to stdout what may be written as it is: it was made printable, and may be styled.

    Raises:
        ResourceError, BrokenPipeError: as `show`.
    """
    encoding = sys.stdout.encoding or "utf-8"  # LANG=C has ASCII: an answer in Chinese must not end in a traceback
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise ResourceError.at("cannot write output", "stdout", why, "Free some space") from error


def show_report(text: str) -> None:
    """Writes what is for people, not for programs: escaped in a pipe, too, since it is read in a pager or a log.

    Raises:
        ResourceError, BrokenPipeError: as `show`.
    """
    show(printable(text, keep="\n\t"))


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


def say(kind: Literal["error", "notice", "done", "progress", "asked", "stopped"], message: str) -> None:
    """Writes one line of talk to stderr: `error: ...`."""
    line = f"{kind}: {shortened(message, _MAX_LINE - len(kind) - 2)}"
    # What rich puts in the place of stderr while it shows a bar does not tell the encoding.
    stream = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
    is_unicode = "utf" in (stream.encoding or "").lower()
    shown = line if is_unicode else line.encode("ascii", "backslashreplace").decode()
    if sys.stderr.isatty():  # which would end its lines within words
        width = shutil.get_terminal_size().columns
        shown = "\n".join(textwrap.wrap(shown, width, break_on_hyphens=False, drop_whitespace=True)) or shown
    print_to_stderr(f"{_DIM}{shown}{_PLAIN}" if kind == "asked" and shows_styles() else shown)


def shows_styles() -> bool:
    """Says whether a terminal shows bold and dim text, and whoever sits at it wants that."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_to_stderr(text: str = "") -> None:
    """Writes text and a line break to stderr; where that takes nothing, nobody hears it and the work goes on."""
    with suppress(OSError):  # a full disk, a terminal that is gone
        print(text, file=sys.stderr)


class Talk:
    """Says each notice once, or nothing when quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.notices: set[str] = set()

    def notice(self, message: str) -> None:
        """Says something a user should know."""
        if not self.quiet and message not in self.notices:
            self.notices.add(message)
            say("notice", message)

    def asked(self, message: str) -> None:
        """Says what was asked in place of what was typed: to who watches alone, since records have it."""
        if not self.quiet and sys.stderr.isatty():
            say("asked", message)

    def done(self, message: str) -> None:
        """Says how it went."""
        if not self.quiet:
            say("done", message)

    def progress(self, message: str) -> None:
        """Says how far it is."""
        if not self.quiet:
            say("progress", message)

    @contextmanager
    def listening(self, level: int = logging.WARNING) -> Iterator[None]:
        """Says what the library logs, instead of logging's own format: a warning as a notice, less as progress.

        Args:
            level: the lowest that is said.
        """
        logger, handler = logging.getLogger("vlinstruct"), _Handler(self, level)
        before = logger.level
        logger.addHandler(handler)
        logger.setLevel(level)
        try:
            yield
        finally:
            logger.setLevel(before)
            logger.removeHandler(handler)
            for name, count in handler.counts.items():
                if count > _MAX_OF_MANY:
                    self.notice(f"{count - _MAX_OF_MANY:,} more notices of {_MANY[name]} are not shown.")


class _Handler(logging.Handler):
    def __init__(self, talk: Talk, level: int) -> None:
        super().__init__(level)
        self.talk = talk
        self.counts = dict.fromkeys(_MANY, 0)

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno < logging.WARNING:
            self.talk.progress(message)
            return
        if record.name in _MANY and message not in self.talk.notices:
            self.counts[record.name] += 1
            if self.counts[record.name] > _MAX_OF_MANY:
                return
        self.talk.notice(message)


@contextmanager
def progress(num_items: int, *, quiet: bool, console: Console | None = None) -> Iterator[Callable[[], None]]:
    """Shows a progress bar where stderr is a terminal; gives the function to call after each item.

    Args:
        num_items: after so many calls it is full.
        quiet: show none.
        console: what else is drawn meanwhile goes through it and stands above the bar; None for one on stderr.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    # Imported for a bar only: rich takes about as long as everything that `--help` imports.
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from vlinstruct.cli.tables import console_on

    console = console or console_on(sys.stderr)
    # stdout is data: what goes there while a bar is shown must not be taken for talk.
    with Progress(
        BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True, redirect_stdout=False
    ) as bar:
        task = bar.add_task("", total=num_items)
        yield lambda: bar.advance(task)


class Stopped(BaseException):
    """A signal told us to stop. No Exception, since a library's `except Exception` on the way would swallow it."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code


_farewells: list[str] = []


@contextmanager
def told_if_stopped(message: str | None) -> Iterator[None]:
    """Makes `say_farewell` say a message, if there is one, where the block is stopped by a signal."""
    _farewells.extend([message] if message is not None else [])
    try:
        yield
    except Stopped:
        raise  # whoever catches it says the message; where nobody does, `main` ends the process and says it, too
    except BaseException:
        _farewells.clear()
        raise
    _farewells.clear()


def say_farewell() -> None:
    """Says how to go on, once, where there is something to go on with."""
    while _farewells:
        say("stopped", _farewells.pop())


@contextmanager
def ctrl_c_interrupts() -> Iterator[None]:
    """Makes Ctrl-C raise KeyboardInterrupt instead of ending the process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
