"""Only one run at a time writes to an output."""

from __future__ import annotations

import os
from functools import cache
from typing import BinaryIO
from weakref import WeakSet

from vlinstruct.errors import OutputInUseError, printable


def lock(stream: BinaryIO, name: str) -> tuple[str, ...]:
    """Locks an open file until it is closed or the process ends, however it ends.

    Args:
        stream: the file.
        name: what to call it in messages.

    Returns:
        Notices: that nothing could be locked here, say.

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
