"""Tab in a chat: completes commands, and the paths behind those that take one, names with blanks included."""

from __future__ import annotations

import os
from collections.abc import Iterator

COMMANDS = ("/optimize", "/use", "/image", "/save", "/load", "/reset", "/help", "/quit")
_TAKE_A_PATH = ("/image", "/save", "/load")
_TAKE_TEXT = ("/optimize",)
_QUOTES = "'\""
_MAX_CANDIDATES = 1_000


def set_up() -> None:
    """Gives `input` a history of lines, and Tab its meaning here; nothing where the system has no readline."""
    try:
        import readline
    except ImportError:
        return
    # A match is a whole line; readline is told what follows the last blank or slash, and lists no more than that.
    readline.set_completer_delims(" /")
    matches: list[str] = []

    def complete(text: str, state: int) -> str | None:
        if state == 0:
            line = readline.get_line_buffer()[: readline.get_endidx()]
            matches[:] = [candidate[readline.get_begidx() :] for candidate in candidates(line)]
        return matches[state] if state < len(matches) else None

    readline.set_completer(complete)
    is_libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")


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
    return [head + place for place in _places(path.removeprefix(quote), is_picture=command == "/image")]


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
