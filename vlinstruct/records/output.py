"""Writes one JSON line per item, to stdout or to a file that a later run resumes.

A record is a dict here and nowhere else: `schema`, `id` and `status` come first, `key` names what it was computed from.
A file is checked and locked before any work. It grows by whole lines, each flushed to the disk. A run that finds
records of an earlier one keeps the good ones, drops half a last line, and drops failed ones so that they are tried
again: in the end the file holds exactly one record per item, with those that were tried again last.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import BinaryIO, Self

from vlinstruct.errors import InputError, ResourceError, VlinstructError
from vlinstruct.files import PathLike, lock, sync
from vlinstruct.records.resume import Earlier, Target, earlier_notices, lines, scan

_RAW_ESCAPES = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")
_FIRST_FIELDS = ("schema", "id", "status")
_MODE = 0o666  # before the umask

_REASONS = {
    errno.ENOSPC: ("disk_full", "no space is left on the disk", "Free some space and run the same command again"),
    errno.EDQUOT: ("disk_full", "the disk quota is used up", "Free some space and run the same command again"),
    errno.EFBIG: ("file_too_large", "it would pass the size that a file may have here (ulimit -f)", "Raise that limit"),
    errno.EROFS: ("output_read_only", "the file system is read-only", "Choose another place"),
    errno.EACCES: ("output_permission", "permission denied", "Check the permissions or choose another place"),
    errno.EPERM: ("output_permission", "permission denied", "Check the permissions or choose another place"),
    errno.ENAMETOOLONG: ("output_bad_path", "the path is too long", "Use a shorter path"),
    errno.ELOOP: ("output_bad_path", "its symbolic links form a loop", "Repair the link"),
    errno.ESTALE: ("output_deleted", "it was deleted during the run", "Run the same command again"),
}
_UNWRITABLE = ("output_failed", "it cannot be written", "Choose another place")


def json_line(record: Mapping[str, object]) -> bytes:
    r"""Returns a record as one line of UTF-8.

    Text stays readable in every script; control, bidi and line separator characters and the lone surrogates of file
    names that are no UTF-8 are written as JSON escapes, so that a terminal is safe and a name keeps its bytes.

    Raises:
        ValueError: it holds NaN or an infinity, which JSON cannot.

    >>> json_line({"answer": "é", "id": "a\udcff.png"})
    b'{"id": "a\\udcff.png", "answer": "\xc3\xa9"}\n'
    """
    first = {name: record[name] for name in _FIRST_FIELDS if name in record}
    text = json.dumps({**first, **record}, ensure_ascii=False, allow_nan=False)
    return (_RAW_ESCAPES.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n").encode()


def error_record(schema: str, id: str | int, error: VlinstructError) -> dict[str, object]:
    """Returns the record of an item that failed."""
    return {"schema": schema, "id": id, "status": "error", "code": error.code, "message": error.message}


class RecordWriter:
    """Writes records as whole lines; use it as a context manager.

    Args:
        stream: a binary stream, e.g. `sys.stdout.buffer`, or an unbuffered file from `open_records`.
        name: what to call it in messages.
        keys: for every item, `str(id)` to its resume key; written into the item's record as `key`.
        done: `str(id)` of items that an earlier run finished; `open_records` fills it.
        notices: what a user should know about the file as it was found.
        closes: close the stream at the end.
        is_file: the stream is a regular file: a line that does not fit is taken back, each line is synced to the disk.
        new_path: the file's path where this run made it: it is removed if the run is refused before its first record.
        replacement: gives the stream that the first record goes to, in the place of `stream`: what `--overwrite`
            replaces stays until then.
    """

    def __init__(
        self,
        stream: BinaryIO,
        *,
        name: str = "stdout",
        keys: Mapping[str, str] | None = None,
        done: frozenset[str] = frozenset(),
        notices: tuple[str, ...] = (),
        closes: bool = False,
        is_file: bool = False,
        new_path: str | None = None,
        replacement: Callable[[], BinaryIO] | None = None,
    ) -> None:
        self.done = done
        self.notices = notices
        self._stream, self._name = stream, name
        self._closes, self._is_file = closes, is_file
        self._new_path, self._replacement = new_path, replacement
        self._keys = keys or {}
        self._lock = threading.Lock()

    def is_done(self, id: str | int) -> bool:
        """Says whether the output already holds a good record of this item."""
        return str(id) in self.done

    def write(self, record: Mapping[str, object]) -> None:
        """Writes one record (`schema`, `id`, `status` and what is found out); several threads may.

        Raises:
            ResourceError: the disk is full or the output cannot be written or was deleted.
            BrokenPipeError: the reader of a pipe went away, which is no error of the user's.
        """
        line = json_line(self._with_key(record))
        with self._lock:
            try:
                self._append(line) if self._is_file else self._send(line)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise _cannot_write(self._name, error) from error

    def _with_key(self, record: Mapping[str, object]) -> Mapping[str, object]:
        key = self._keys.get(str(record["id"]))
        return record if key is None else {**record, "key": key}

    def _send(self, line: bytes) -> None:
        """Writes to a pipe, a terminal or a device, which cannot be synced or cut."""
        self._stream.write(line)
        self._stream.flush()

    def _append(self, line: bytes) -> None:
        # Written and synced by itself, past Python's buffers: what a user saw as done survives a power cut, and where
        # the disk is full the half line can be taken back.
        self._replace()
        descriptor = self._stream.fileno()
        status = os.fstat(descriptor)
        if status.st_nlink == 0:
            raise OSError(errno.ESTALE, "deleted")
        try:
            _write_all(descriptor, line)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, status.st_size)
            raise

    def _replace(self) -> None:
        replacement, self._replacement = self._replacement, None
        if replacement is not None:
            self._stream = replacement()

    def close(self) -> None:
        """Closes a file and frees its lock; a stream that was given stays open unless `closes` was said."""
        if self._closes:
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._replace()
        elif self._new_path is not None and os.fstat(self._stream.fileno()).st_size == 0:
            with suppress(FileNotFoundError):  # somebody else was faster
                os.unlink(self._new_path)
        self.close()


def _write_all(descriptor: int, content: bytes) -> None:
    """Writes all bytes: one call as a rule, more where the system takes only a part."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


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
        A writer whose `done` holds the items with a good record in the file.

    Raises:
        InputError: the path is a directory, an input or no place for a file (`output_*`), or the file holds anything
            else than records of this schema (`output_not_records`), or good ones of these items made in another way
            (`output_other_run`).
        OutputInUseError: another process writes it.
        ResourceError: it cannot be written.
    """
    name = os.fspath(path)
    try:
        check_place(name, inputs)
        if _is_device(name):
            return RecordWriter(open(name, "wb", buffering=0), name=name, keys=keys, closes=True)
        # Links are resolved: replacing the file must not replace the link.
        target = Target(name=name, real=os.path.realpath(name), schema=schema, keys=keys)
        is_new = not os.path.lexists(target.real)
        stream, notices = _open_locked(target)
        return _resume(stream, target, overwrite, notices, is_new=is_new)
    except OSError as error:
        raise _cannot_write(name, error) from error
    except ValueError as error:  # a NUL or a lone surrogate in the path
        raise _refuse(name, "bad_path", "the path holds a character no path can hold", "Check the path") from error


def _refuse(name: str, code: str, why: str, advice: str) -> InputError:
    return InputError.at("cannot write output", name, why, advice, code=f"output_{code}")


def check_place(name: str, inputs: Iterable[PathLike]) -> None:
    """Refuses an output's path that is a directory, one of the inputs, or in no folder.

    Raises:
        InputError: `output_is_directory`, `output_is_input` or `output_no_parent`.
    """
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


def _resume(
    stream: BinaryIO, target: Target, overwrite: bool, notices: tuple[str, ...], *, is_new: bool
) -> RecordWriter:
    try:
        size = os.fstat(stream.fileno()).st_size
        earlier = Earlier() if overwrite else scan(target)
        if earlier.dropped:
            stream = _replaced(stream, target, earlier)
        elif not overwrite and earlier.whole_bytes < size:
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
        new_path=target.real if is_new else None,
        replacement=partial(_replaced, stream, target, earlier) if overwrite and size else None,
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
            _write_all(new.fileno(), line)
    os.fsync(new.fileno())


def _cannot_write(name: str, error: OSError) -> ResourceError:
    """Builds the error of an output that the system does not let us write."""
    code, why, advice = _REASONS.get(error.errno or 0, _UNWRITABLE)
    return ResourceError.at("cannot write output", name, why, advice, code=code)
