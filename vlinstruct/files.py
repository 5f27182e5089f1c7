"""Opens a file that the user named: a regular file or an error, never a hang on a pipe or a device."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from typing import Literal

from vlinstruct.errors import DataError, ImageError, InputError

Kind = Literal["image", "data"]
PathLike = str | os.PathLike[str]

_ERRORS: dict[Kind, type[InputError]] = {"image": ImageError, "data": DataError}
_WHATS: dict[Kind, str] = {"image": "cannot read image", "data": "cannot read file"}

_REASONS = {
    errno.ENOENT: ("missing", "no such file", "Check the path"),
    errno.ENOTDIR: ("missing", "no such file, a part of the path is a file", "Check the path"),
    errno.EACCES: ("permission", "permission denied", "Check the file's permissions"),
    errno.EPERM: ("permission", "permission denied", "Check the file's permissions"),
    errno.ELOOP: ("symlink_loop", "its symbolic links form a loop", "Repair the link"),
    errno.ENAMETOOLONG: ("bad_path", "the path is too long", "Use a shorter path"),
}
_UNREADABLE = ("unreadable", "the system cannot read it", "Check the disk and the path")
_BAD_PATH = ("bad_path", "the path holds a character no path can hold", "Check the path")


def refusal(kind: Kind, place: object, code: str, why: str, advice: str) -> InputError:
    """Builds the error of a file that cannot be read; its code is `<kind>_<code>`."""
    return _ERRORS[kind].at(_WHATS[kind], place, why, advice, code=f"{kind}_{code}")


def open_regular(path: PathLike, *, kind: Kind) -> BufferedReader:
    """Opens a regular file for reading.

    Args:
        path: the file.
        kind: chooses the error's class and the prefix of its code.

    Raises:
        ImageError or DataError: missing, a directory, not a regular file, no permission, a loop of links.
    """
    try:
        # Looked at before it is opened: opening a device can act on it, opening a pipe can wait for ever.
        _check_regular(os.stat(path), path, kind)
        # The file may be swapped for a pipe in between, hence O_NONBLOCK and the second look.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        stream = os.fdopen(os.open(path, flags), "rb")
    except OSError as error:
        code, why, advice = _REASONS.get(error.errno or 0, _UNREADABLE)
        raise refusal(kind, os.fspath(path), code, why, advice) from error
    except ValueError as error:  # a NUL or a lone surrogate in the path
        raise refusal(kind, os.fspath(path), *_BAD_PATH) from error
    try:
        _check_regular(os.fstat(stream.fileno()), path, kind)
    except InputError:
        stream.close()
        raise
    return stream


def _check_regular(status: os.stat_result, path: PathLike, kind: Kind) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise refusal(kind, os.fspath(path), "is_directory", "it is a directory", "Name a file")
    if not stat.S_ISREG(status.st_mode):
        raise refusal(kind, os.fspath(path), "not_regular", "not a regular file", "Copy its content to a file")


def read_regular(path: PathLike, *, kind: Kind, max_bytes: int) -> bytes:
    """Reads a whole file of at most `max_bytes`; a larger one is refused before a byte of it is read.

    Raises:
        ImageError or DataError: as `open_regular`; also too large, or changed while it was read.
    """
    with open_regular(path, kind=kind) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > max_bytes:
            raise too_many_bytes(kind, os.fspath(path), size, max_bytes)
        try:
            content = stream.read(size + 1)
        except OSError as error:
            raise refusal(kind, os.fspath(path), *_UNREADABLE) from error
    if len(content) != size:
        why = "it changed while it was read"
        raise refusal(kind, os.fspath(path), "changed", why, "Try again when nothing writes to it")
    return content


def too_many_bytes(kind: Kind, place: object, size_bytes: int | None, max_bytes: int) -> InputError:
    """Builds the error of a file past the byte cap; `size_bytes` is None where reading stopped at the cap."""
    size = f"{size_bytes:,} bytes" if size_bytes is not None else f"more than {max_bytes:,} bytes"
    why = f"{size}, at most {max_bytes:,} are read"
    return refusal(kind, place, "file_too_large", why, "Use a smaller file or raise max_bytes")
