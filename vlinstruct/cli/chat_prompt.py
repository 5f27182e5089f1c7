"""A chat's prompt: a line that is edited, completed by Tab, cleared by Ctrl-C, and there again after Ctrl-Z and `fg`.

Tab completes commands, and the paths behind those that take one, names with blanks included.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from types import ModuleType
from typing import Any

from vlinstruct.cli.terminal import ctrl_c_interrupts, print_to_stderr

COMMANDS = ("/optimize", "/use", "/image", "/save", "/load", "/reset", "/help", "/quit")
_PROMPT = "> "
_TAKE_A_PATH = ("/image", "/save", "/load")
_TAKE_TEXT = ("/optimize",)
_QUOTES = "'\""
_MAX_CANDIDATES = 1_000


def keep_continuing_to_the_prompt() -> None:
    """Keeps SIGCONT from every thread that is started from here on, and from this one but while a line is read.

    The system may hand a process's signal to any thread that takes it, and only the one that waits for a key wakes up.
    """
    if hasattr(signal, "SIGCONT"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT})


class Prompt:
    """Reads lines that are typed; where the system has no readline, as the terminal gives them."""

    def __init__(self) -> None:
        self.readline: ModuleType | None = None
        with suppress(ImportError):
            import readline

            self.readline = readline  # its import alone gives `input` a history
            self._set_up_tab(readline)

    def read(self) -> str | None:
        """Returns what is typed, None at the end; a prompt is no data, so stderr shows it where stdout is.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        try:
            shown_on = sys.stdout if sys.stdout.isatty() else sys.stderr
            with redirect_stdout(shown_on), self._continued(), ctrl_c_interrupts():
                return input(_PROMPT)
        except BaseException as end:
            print_to_stderr()  # the shell's prompt begins on a line of its own
            if isinstance(end, EOFError):
                return None
            raise

    @property
    def line(self) -> str:
        """What stands in the line, or stood there when Ctrl-C came; nothing where nobody knows."""
        return "" if self.readline is None else str(self.readline.get_line_buffer())

    def _set_up_tab(self, readline: Any) -> None:
        # A match is a whole line; readline is told what follows the last blank or slash, and lists no more than that.
        readline.set_completer_delims(" /")
        matches: list[str] = []

        def complete(text: str, state: int) -> str | None:
            if state == 0:
                line = self.line[: readline.get_endidx()]
                matches[:] = [candidate[readline.get_begidx() :] for candidate in candidates(line)]
            return matches[state] if state < len(matches) else None

        readline.set_completer(complete)
        is_libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")

    @contextmanager
    def _continued(self) -> Iterator[None]:
        """Gives the terminal its mode back after Ctrl-Z and `fg`, and shows the line: Python's readline does not."""
        if self.readline is None or not sys.stdin.isatty() or not hasattr(signal, "SIGCONT"):
            yield
            return
        import termios

        terminal, modes = sys.stdin, list[Any]()

        def go_on(*_: object) -> None:
            with suppress(termios.error, OSError):  # the signal comes, too, when the terminal goes away
                if modes:
                    termios.tcsetattr(terminal, termios.TCSADRAIN, modes[0])
                    print(_PROMPT + self.line, end="", flush=True)

        def note_modes() -> None:
            with suppress(termios.error, OSError):
                modes[:] = [termios.tcgetattr(terminal)]

        self.readline.set_pre_input_hook(note_modes)
        before = signal.signal(signal.SIGCONT, go_on)
        blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCONT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            signal.signal(signal.SIGCONT, before)


def candidates(line: str) -> list[str]:
    """Returns the lines that a beginning may become.

    >>> candidates("/op"), candidates("/l"), candidates("what is"), candidates("/reset ")
    (['/optimize '], ['/load '], [], [])
    """
    command, blank, path = line.partition(" ")
    if not line.startswith("/"):
        return []
    if not blank:
        takes_more = (*_TAKE_A_PATH, *_TAKE_TEXT)
        return [f"{name} " if name in takes_more else name for name in COMMANDS if name.startswith(line)]
    if command not in _TAKE_A_PATH:
        return []
    blanks = path[: len(path) - len(path.lstrip(" "))]
    path = path.lstrip(" ")
    quote = path[0] if path[:1] and path[0] in _QUOTES else ""
    head = f"{command} {blanks}{quote}"
    places = _places(path.removeprefix(quote), is_picture=command == "/image")
    return [head + place + ("" if place.endswith("/") else quote) for place in places]


def _places(typed: str, *, is_picture: bool) -> list[str]:
    """Returns the folders, and the files that may be meant, whose path begins with what was typed."""
    from vlinstruct.media.kinds import kind_by_name

    folder, beginning = os.path.split(typed)
    places = []
    for entry in _entries(os.path.expanduser(folder) or "."):
        if not entry.name.startswith(beginning) or (entry.name.startswith(".") and not beginning.startswith(".")):
            continue
        is_folder = _is_folder(entry)
        if is_folder or not is_picture or kind_by_name(entry.name) is not None:
            places.append(os.path.join(folder, entry.name) + "/" * is_folder)
        if len(places) == _MAX_CANDIDATES:
            break
    return sorted(places)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (OSError, ValueError):  # no such folder, one that may not be read, a NUL
        return


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
