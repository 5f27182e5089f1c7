"""Files that are either whole or as they were before.

safetensors writes mode 0600 and does not fsync, and a full disk destroys a file that is written in place: hence a
temporary neighbour, fsync, rename, fsync of the folder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlinstruct.durable import mode_under_umask, sync
from vlinstruct.errors import ResourceError


@contextmanager
def written_atomically(target: Path) -> Iterator[Path]:
    """Gives a temporary path beside `target` that becomes `target` when the block ends well.

    Args:
        target: the file to write; its folder exists.

    Yields:
        The path to write to. If the block raises, it is removed and `target` is as it was.

    Raises:
        ResourceError: the disk is full or not writable.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=".tmp-", suffix=target.name, dir=target.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(mode_under_umask())
            sync(temporary)
            temporary.replace(target)
            sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ResourceError(f"cannot write {target}: {reason}", advice="The file is as it was before.") from error
