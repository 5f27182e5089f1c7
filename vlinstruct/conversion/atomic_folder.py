"""Folders that are either whole or as they were before.

A folder is written beside its place under a hidden name, synced, and renamed. Where one stands there already, the two
change places in one step (Linux); whoever reads meanwhile sees the old one or the new one, never a mixture.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlinstruct.errors import InputError, ResourceError
from vlinstruct.files import held, mode_under_umask, remove_abandoned, sync

_KNOWN_BY = ("config.json", "alignment_config.json")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def require_replaceable(target: Path, *, force: bool) -> None:
    """Refuses a place where something would be lost.

    Args:
        target: where a model or adapter folder is to stand; an empty folder is as good as none.
        force: whether a model or adapter that stands there may be replaced.

    Raises:
        InputError: something stands there, or it is no model that `force` may replace.
    """
    if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir() or not any((target / name).is_file() for name in _KNOWN_BY):
        raise _exists(target, "something else than a model or adapter folder is there", "Give another --output")
    if not force:
        raise _exists(target, "it exists", "Give another --output, or --force to replace it")


def remove_leftovers(target: Path) -> list[Path]:
    """Removes the hidden folders of runs that were killed.

    Returns:
        Those that stay: of runs that write to the same target now, or an old folder that a killed run put aside.
    """
    place = _resolved(target)
    if not place.parent.is_dir():
        return []
    name = glob.escape(place.name)
    return remove_abandoned(sorted(place.parent.glob(f".tmp-{name}-*"))) + sorted(place.parent.glob(f".old-{name}-*"))


@contextmanager
def folder_written_atomically(target: Path, *, force: bool = False) -> Iterator[Path]:
    """Gives a temporary folder beside `target` that becomes `target` when the block ends well.

    Args:
        target: the folder to write; its parents are made. A link is followed.
        force: whether a model or adapter folder that stands there may be replaced.

    Yields:
        The folder to write to. If the block raises, it is removed and `target` is as it was.

    Raises:
        InputError: something stands there that may not be replaced, perhaps since the block began.
        ResourceError: the disk is full or not writable.
    """
    require_replaceable(target, force=force)
    place = _resolved(target)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with held(lambda: Path(tempfile.mkdtemp(prefix=f".tmp-{place.name}-", dir=place.parent))) as temporary:
            try:
                yield temporary
                _finish(temporary)
                _put(temporary, place, force=force)
                sync(place.parent)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)  # what was not renamed, or the old folder
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ResourceError.at("cannot write folder", target, why, "What was there is as it was") from error


def _resolved(target: Path) -> Path:
    return Path(os.path.realpath(target))


def _finish(folder: Path) -> None:
    """Brings everything to the disk, with the modes that a user expects."""
    mode = mode_under_umask()
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            path.chmod(mode)
            sync(path)
        Path(parent).chmod(mode | (mode & 0o444) >> 2)  # who may read a folder may enter it
        sync(parent)


def _put(temporary: Path, place: Path, *, force: bool) -> None:
    try:
        temporary.rename(place)
    except OSError as error:
        if error.errno not in _OCCUPIED:
            raise
        require_replaceable(place, force=force)
        if not _exchange(temporary, place):
            _replace_in_two_steps(temporary, place)


def _exchange(first: Path, second: Path) -> bool:
    """Lets two folders change names in one step; says whether the system can.

    Python has no call for it. rename() refuses a folder that is not empty, and to move it aside first leaves an instant
    without any: who loads the model then fails.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):  # musl
        return False
    return libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0


def _replace_in_two_steps(temporary: Path, place: Path) -> None:
    aside = Path(tempfile.mkdtemp(prefix=f".old-{place.name}-", dir=place.parent))
    place.rename(aside)
    try:
        temporary.rename(place)
    except OSError:
        aside.rename(place)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _exists(target: Path, why: str, advice: str) -> InputError:
    return InputError.at("cannot write to", target, why, advice, code="target_exists")
