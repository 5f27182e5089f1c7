"""What files need to outlive a crash: bytes on the disk, the mode a user expects, a checksum to know them by."""

from __future__ import annotations

import hashlib
import os

from vlinstruct.files import PathLike


def sync(path: PathLike) -> None:
    """Brings a file, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mode_under_umask() -> int:
    """Returns the mode of a new file: safetensors and temporary files have 0600 whatever the umask."""
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def file_sha256(path: PathLike) -> str:
    """Returns a file's SHA-256 as hex digits.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
