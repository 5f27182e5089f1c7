"""Writes one JSON line per item, to stdout or to a file that a later run resumes.

A record is a dict here and nowhere else: `schema`, `id` and `status` come first, `key` names what it was computed from.
A file grows by whole lines, each flushed to the disk; while it is open its lock is held. A run that finds records of an
earlier one keeps the good ones, drops half a last line, and drops failed ones so that they are tried again: in the end
the file holds exactly one record per item.
"""

from __future__ import annotations

import errno
import json
import os
import re
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import BinaryIO, Self

from vlinstruct.errors import ResourceError, VlinstructError

_RAW_ESCAPES = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")
_FIRST_FIELDS = ("schema", "id", "status")


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
        done: keys that an earlier run finished; `open_records` fills it.
        notices: what a user should know about the file as it was found.
        closes: close the stream at the end.
        is_file: the stream is a regular file: a line that does not fit is taken back, each line is synced to the disk.
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
    ) -> None:
        self.done = done
        self.notices = notices
        self._stream, self._name = stream, name
        self._closes, self._is_file = closes, is_file
        self._keys = keys or {}
        self._lock = threading.Lock()

    def is_done(self, id: str | int) -> bool:
        """Says whether the output already holds a good record of this item."""
        return self._keys.get(str(id)) in self.done

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
                raise cannot_write(self._name, error) from error

    def _with_key(self, record: Mapping[str, object]) -> Mapping[str, object]:
        key = self._keys.get(str(record["id"]))
        return record if key is None else {**record, "key": key}

    def _send(self, line: bytes) -> None:
        self._stream.write(line)
        self._stream.flush()

    def _append(self, line: bytes) -> None:
        descriptor = self._stream.fileno()
        status = os.fstat(descriptor)
        if status.st_nlink == 0:
            raise OSError(errno.ESTALE, "deleted")
        try:
            write_all(descriptor, line)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, status.st_size)
            raise

    def close(self) -> None:
        """Closes a file and frees its lock; a stream that was given stays open unless `closes` was said."""
        if self._closes:
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_all(descriptor: int, content: bytes) -> None:
    """Writes all bytes: one call as a rule, more where the system takes only a part."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


_REASONS = {
    errno.ENOSPC: ("disk_full", "no space is left on the disk", "Free some space and run the same command again"),
    errno.EDQUOT: ("disk_full", "the disk quota is used up", "Free some space and run the same command again"),
    errno.EROFS: ("output_read_only", "the file system is read-only", "Choose another place"),
    errno.EACCES: ("output_permission", "permission denied", "Check the permissions or choose another place"),
    errno.EPERM: ("output_permission", "permission denied", "Check the permissions or choose another place"),
    errno.ENAMETOOLONG: ("output_bad_path", "the path is too long", "Use a shorter path"),
    errno.ELOOP: ("output_bad_path", "its symbolic links form a loop", "Repair the link"),
    errno.ESTALE: ("output_deleted", "it was deleted during the run", "Run the same command again"),
}
_UNWRITABLE = ("output_failed", "it cannot be written", "Choose another place")


def cannot_write(name: str, error: OSError) -> ResourceError:
    """Builds the error of an output that the system does not let us write."""
    code, why, advice = _REASONS.get(error.errno or 0, _UNWRITABLE)
    return ResourceError.at("cannot write output", name, why, advice, code=code)
