"""Opens an output file for records: checked and locked before any work, resumed where an earlier run stopped."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from typing import BinaryIO

from vlinstruct.errors import InputError
from vlinstruct.files import PathLike, sync
from vlinstruct.records.lock import lock
from vlinstruct.records.output import RecordWriter, cannot_write, write_all
from vlinstruct.records.resume import Earlier, Target, earlier_notices, lines, scan

_MODE = 0o666  # before the umask


def open_records(
    path: PathLike, *, schema: str, keys: Mapping[str, str], overwrite: bool = False, inputs: Iterable[PathLike] = ()
) -> RecordWriter:
    """Opens a file of records to append to, keeping what an earlier run finished.

    Args:
        path: the output; `/dev/null` and other character devices are written as streams.
        schema: the `schema` of every record, e.g. `vlinstruct.ask/1`.
        keys: for every item of this run, `str(id)` to its resume key (from id, arguments and the weights' fingerprint).
        overwrite: replace whatever the file holds, atomically, in place of resuming.
        inputs: files that the run reads, none of which may be the output.

    Returns:
        A writer whose `done` holds the keys with a good record in the file.

    Raises:
        InputError: the path is a directory, an input or no place for a file (`output_*`), or the file holds anything
            else than records of this schema (`output_not_records`), or good ones of these items made in another way
            (`output_other_run`).
        OutputInUseError: another process writes it.
        ResourceError: it cannot be written.
    """
    name = os.fspath(path)
    try:
        _check_place(name, inputs)
        if _is_device(name):
            return RecordWriter(open(name, "wb", buffering=0), name=name, keys=keys, closes=True)
        # Links are resolved: replacing the file must not replace the link.
        target = Target(name=name, real=os.path.realpath(name), schema=schema, keys=keys)
        stream, notices = _open_locked(target)
        return _resume(stream, target, overwrite, notices)
    except OSError as error:
        raise cannot_write(name, error) from error
    except ValueError as error:  # a NUL or a lone surrogate in the path
        raise _refuse(name, "bad_path", "the path holds a character no path can hold", "Check the path") from error


def _refuse(name: str, code: str, why: str, advice: str) -> InputError:
    return InputError.at("cannot write output", name, why, advice, code=f"output_{code}")


def _check_place(name: str, inputs: Iterable[PathLike]) -> None:
    if not _is_folder(os.path.dirname(name) or "."):
        raise _refuse(name, "no_parent", "its folder does not exist", "Create the folder first")
    if os.path.isdir(name):
        raise _refuse(name, "is_directory", "it is a directory", "Name a file")
    if os.path.exists(name) and any(os.path.exists(path) and os.path.samefile(name, path) for path in inputs):
        raise _refuse(name, "is_input", "it is one of the inputs", "Name another file")


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_device(name: str) -> bool:
    if not os.path.exists(name):
        return False
    mode = os.stat(name).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISCHR(mode):
        raise _refuse(name, "not_regular", "it is not a regular file", "Name a file, or use a shell pipe")
    return stat.S_ISCHR(mode)


def _open_locked(target: Target) -> tuple[BinaryIO, tuple[str, ...]]:
    while True:
        stream = _open_to_append(target.real, os.O_CREAT)
        try:
            notices = lock(stream, target.name)
            if _is_at(stream, target.real):
                return stream, notices
        except BaseException:
            stream.close()
            raise
        stream.close()  # another run replaced the file between our opening and locking it


def _is_at(stream: BinaryIO, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _open_to_append(real: str, flags: int) -> BinaryIO:
    flags |= os.O_RDWR | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(real, flags, _MODE), "r+b", buffering=0)


def _resume(stream: BinaryIO, target: Target, overwrite: bool, notices: tuple[str, ...]) -> RecordWriter:
    try:
        size = os.fstat(stream.fileno()).st_size
        earlier = Earlier() if overwrite else scan(target)
        if earlier.dropped or (overwrite and size):
            stream = _replaced(stream, target, earlier)
        elif earlier.whole_bytes < size:
            os.ftruncate(stream.fileno(), earlier.whole_bytes)
    except BaseException:
        stream.close()
        raise
    notices += () if overwrite else earlier_notices(target, earlier, size)
    return RecordWriter(
        stream,
        name=target.name,
        keys=target.keys,
        done=earlier.done,
        notices=notices,
        closes=True,
        is_file=True,
    )


def _replaced(old: BinaryIO, target: Target, earlier: Earlier) -> BinaryIO:
    """Replaces the file by its kept lines, whole or not at all, and returns it open and locked."""
    folder, base = os.path.split(target.real)
    # One name per output, short whatever the output's: our lock on the output keeps others from it.
    temporary = os.path.join(folder, f".vlinstruct-{hashlib.sha256(os.fsencode(base)).hexdigest()[:12]}.partial")
    if os.path.lexists(temporary):
        os.unlink(temporary)  # left by a run that was killed here
    new = _open_to_append(temporary, os.O_CREAT | os.O_EXCL)
    try:
        lock(new, target.name)
        _copy_kept(target.real, new, earlier)
        os.fchmod(new.fileno(), stat.S_IMODE(os.fstat(old.fileno()).st_mode))
        os.replace(temporary, target.real)
    except BaseException:
        new.close()
        os.unlink(temporary)
        raise
    sync(folder)
    old.close()
    return new


def _copy_kept(path: str, new: BinaryIO, earlier: Earlier) -> None:
    left = earlier.whole_bytes
    for number, line in enumerate(lines(path)):
        if left <= 0:
            break
        left -= len(line)
        if number not in earlier.dropped:
            write_all(new.fileno(), line)
    os.fsync(new.fileno())
