"""One file: opened, read, written whole, brought to the disk, locked, identified by its checksum.

What the user named is a regular file or an error, never a hang on a pipe or a device. What we write is whole or as it
was before: safetensors writes mode 0600 and does not fsync, and a full disk destroys a file that is written in place,
hence a temporary neighbour, fsync, rename, fsync of the folder.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal, overload
from weakref import WeakSet

from vlinstruct.errors import (
    CheckpointError,
    ClipError,
    DataError,
    ImageError,
    InputError,
    OutputInUseError,
    ResourceError,
    SoundError,
    VlinstructError,
    printable,
)

Kind = Literal["image", "clip", "sound", "data", "model"]
PathLike = str | os.PathLike[str]

_ERRORS: dict[Kind, type[VlinstructError]] = {
    "image": ImageError,
    "clip": ClipError,
    "sound": SoundError,
    "data": DataError,
    "model": CheckpointError,
}
_WHATS: dict[Kind, str] = {
    "image": "cannot read image",
    "clip": "cannot read clip",
    "sound": "cannot read sound",
    "data": "cannot read file",
    "model": "cannot read file of a model",
}

_REASONS = {
    errno.ENOENT: ("missing", "no such file", "Check the path"),
    errno.ENOTDIR: ("missing", "no such file, a part of the path is a file", "Check the path"),
    errno.EACCES: ("permission", "permission denied", "Check the file's permissions"),
    errno.EPERM: ("permission", "permission denied", "Check the file's permissions"),
    errno.ELOOP: ("symlink_loop", "its symbolic links form a loop", "Repair the link"),
    errno.EMFILE: ("unreadable", "too many files are open", "Raise the limit (ulimit -n)"),
    errno.ENAMETOOLONG: ("bad_path", "the path is too long", "Use a shorter path"),
}
_UNREADABLE = ("unreadable", "the system cannot read it", "Check the disk and the path")
_BAD_PATH = ("bad_path", "the path holds a character no path can hold", "Check the path")
_RANDOM = "[a-z0-9_]" * 8  # what tempfile puts between a prefix and a suffix
_MAX_JSON_BYTES = 50_000_000  # a real tokenizer.json has 2-17 MB


@overload
def refusal(
    kind: Literal["image", "clip", "sound", "data"], place: object, code: str, why: str, advice: str
) -> InputError: ...
@overload
def refusal(kind: Kind, place: object, code: str, why: str, advice: str) -> VlinstructError: ...
def refusal(kind: Kind, place: object, code: str, why: str, advice: str) -> VlinstructError:
    """Builds the error of a file that cannot be read; its code is `<kind>_<code>`."""
    return _ERRORS[kind].at(_WHATS[kind], place, why, advice, code=f"{kind}_{code}")


def open_regular(path: PathLike, *, kind: Kind) -> BufferedReader:
    """Opens a regular file for reading.

    Args:
        path: the file.
        kind: chooses the error's class and the prefix of its code.

    Raises:
        ImageError, DataError or CheckpointError, by its kind: missing, a directory, not a regular file, no
            permission, a loop of links.
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
    except VlinstructError:
        stream.close()
        raise
    return stream


def _check_regular(status: os.stat_result, path: PathLike, kind: Kind) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise refusal(kind, os.fspath(path), "is_directory", "it is a directory", "Name a file")
    if not stat.S_ISREG(status.st_mode):
        raise refusal(kind, os.fspath(path), "not_regular", "not a regular file", "Copy its content to a file")


def opened(source: PathLike | bytes | BinaryIO, *, kind: Kind) -> AbstractContextManager[BinaryIO]:
    """Opens a path, or bytes, for reading; a file object is the caller's and stays open.

    Raises:
        VlinstructError: as `open_regular`.
    """
    if isinstance(source, str | os.PathLike):
        return open_regular(source, kind=kind)
    return nullcontext(BytesIO(source) if isinstance(source, bytes | bytearray | memoryview) else source)


def read_regular(path: PathLike, *, kind: Kind, max_bytes: int) -> bytes:
    """Reads a whole file of at most `max_bytes`; a larger one is refused before a byte of it is read.

    Raises:
        ImageError, DataError or CheckpointError: as `open_regular`; also too large, or changed while it was read.
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


def too_many_bytes(kind: Kind, place: object, size_bytes: int | None, max_bytes: int) -> VlinstructError:
    """Builds the error of a file past the byte cap; `size_bytes` is None where reading stopped at the cap."""
    size = f"{size_bytes:,} bytes" if size_bytes is not None else f"more than {max_bytes:,} bytes"
    why = f"{size}, at most {max_bytes:,} are read"
    return refusal(kind, place, "file_too_large", why, "Use a smaller file")


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads one of the small JSON files of a model or adapter folder, which holds an object.

    Raises:
        CheckpointError: the file is missing, too large, not UTF-8, no JSON or no object.
    """
    if not os.path.lexists(path):
        raise CheckpointError(f"{path.name} is missing in {path.parent}", advice="Give a complete model folder.")
    try:
        values = json.loads(read_regular(path, kind="model", max_bytes=_MAX_JSON_BYTES).decode("utf-8"))
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} is damaged: not valid JSON", advice="Download or copy it again.") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is damaged: a JSON object was expected, got {type(values).__name__}.")
    return values


@contextmanager
def written_atomically(target: Path) -> Iterator[Path]:
    """Gives a temporary path beside `target` that becomes `target` when the block ends well.

    Args:
        target: the file to write; its folder exists.

    Yields:
        The path to write to. If the block raises, it is removed and `target` is as it was. What runs left beside
        `target` that were killed here is removed before.

    Raises:
        ResourceError: the disk is full or not writable.
    """
    try:
        remove_abandoned(target.parent.glob(f".tmp-{_RANDOM}{glob.escape(target.name)}"))
        with held(lambda: _empty_file(target)) as temporary:
            try:
                yield temporary  # safetensors puts a file into its place that nobody holds; who writes those has a lock
                temporary.chmod(mode_under_umask())
                sync(temporary)
                temporary.replace(target)
                sync(target.parent)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ResourceError(f"cannot write {target}: {reason}", advice="The file is as it was before.") from error


def _empty_file(target: Path) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=".tmp-", suffix=target.name, dir=target.parent)
    os.close(descriptor)
    return Path(name)


@contextmanager
def held(make: Callable[[], Path]) -> Iterator[Path]:
    """Locks a temporary file or folder while it is written: one that nobody holds is of a run that was killed.

    Args:
        make: makes it; is called again where `remove_abandoned` of another run was there before the lock.
    """
    while True:
        path = make()
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                _try_to_hold(descriptor, may_wait=True)
                os.stat(path)
            except FileNotFoundError:
                os.close(descriptor)
                raise
            break
    try:
        yield path
    finally:
        os.close(descriptor)


def remove_abandoned(temporary: Iterable[Path]) -> list[Path]:
    """Removes temporary files and folders that no process holds.

    Args:
        temporary: such as `held` was called with.

    Returns:
        Those that stay: somebody holds them, or it cannot be told, or they cannot be removed.
    """
    staying = []
    for path in temporary:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:  # somebody else removed it, or may read it alone
            staying += [path] if os.path.lexists(path) else []
            continue
        try:
            if not _try_to_hold(descriptor, may_wait=False):
                staying.append(path)
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError:
            staying.append(path)
        finally:
            os.close(descriptor)
    return staying


def _try_to_hold(descriptor: int, *, may_wait: bool) -> bool:
    """Locks an open file or folder until it is closed; says whether it is locked now."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if may_wait else fcntl.LOCK_NB))
    except (ImportError, OSError):  # Windows; a file system without locks, or somebody else's
        return False
    return True


def sync(path: PathLike) -> None:
    """Brings a file, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mode_under_umask() -> int:
    """Returns the mode of a new file: safetensors and temporary files have 0600 whatever the umask."""
    umask = os.umask(0)  # the only way to read it is to set it
    os.umask(umask)
    return 0o666 & ~umask


def lock(stream: BinaryIO, name: str) -> tuple[str, ...]:
    """Locks an open file, so that only one run writes to it, until it is closed or the process ends, however it ends.

    A file that says "locked" would outlive a run that was killed; the system's own lock goes with the process.

    Args:
        stream: the file.
        name: what to call it in messages.

    Returns:
        Notices: that nothing can be locked here, where that is so.

    Raises:
        OutputInUseError: another process holds the lock.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return (f"{printable(name)}: files cannot be locked here, let only one run write it",)
    try:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        why = f"{_lock_holder(stream)} writes to it"
        raise OutputInUseError.at("cannot write output", name, why, "Wait for it, or name another file") from error
    except OSError:  # a network file system without locks
        return (f"{printable(name)}: its file system has no locks, let only one run write it",)
    _parted_in_children().add(stream)
    return ()


@cache
def _parted_in_children() -> WeakSet[BinaryIO]:
    """Returns a set of files that a forked child parts from: it would keep them locked when this process is gone."""
    files: WeakSet[BinaryIO] = WeakSet()

    def part() -> None:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in files:
            if not stream.closed:
                os.dup2(nothing, stream.fileno(), inheritable=False)
        os.close(nothing)

    os.register_at_fork(after_in_child=part)
    return files


def _lock_holder(stream: BinaryIO) -> str:
    """Names the process that holds the lock, where Linux tells: `1: FLOCK ADVISORY WRITE 4242 fe:01:99 0 EOF`."""
    inode = str(os.fstat(stream.fileno()).st_ino)
    try:
        with open("/proc/locks", encoding="ascii") as locks:
            fields = [line.split() for line in locks]
    except OSError:
        return "another process"
    pids = [field[4] for field in fields if field[1] == "FLOCK" and field[5].rpartition(":")[2] == inode]
    return f"process {pids[0]}" if pids and pids[0].isdigit() and pids[0] != "0" else "another process"


def leads_out(path: PathLike, folder: PathLike) -> bool:
    """Says whether a path in a folder means a file elsewhere, through a link; the folder itself may be a link.

    The files of a snapshot in the hub's cache are links to its blobs, which count as inside.

    Args:
        path: begins with the folder, and has no `..` behind it.
        folder: what it is to stay in.
    """
    try:
        real = os.path.realpath(path)
    except ValueError:  # a lone surrogate: no file has such a name, and reading it says so
        return False
    if real == os.path.abspath(path):  # mostly there is no link at all, and one look per file is enough
        return False
    root = Path(os.path.realpath(folder))
    snapshot = next((place for place in (root, *root.parents) if place.parent.name == "snapshots"), None)
    inside = [root] if snapshot is None else [root, snapshot.parent.parent / "blobs"]
    return not any(Path(real).is_relative_to(place) for place in inside)


def file_sha256(path: PathLike, *, kind: Kind) -> str:
    """Returns a file's SHA-256 as hex digits.

    Raises:
        ImageError, DataError or CheckpointError, by its kind: it is missing, no regular file or cannot be read.
    """
    with open_regular(path, kind=kind) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise refusal(kind, os.fspath(path), *_UNREADABLE) from error
