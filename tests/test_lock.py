"""A lock goes with the process that took it, whatever children it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from vlinstruct.errors import OutputInUseError
from vlinstruct.files import lock

_PARENT = """
import os, subprocess, sys, time
from vlinstruct.errors import OutputInUseError
from vlinstruct.files import lock
with open(sys.argv[1], "ab") as stream:
    lock(stream, "it")
    child = os.fork() if sys.argv[2] == "fork" else subprocess.Popen([sys.executable, "-c", "input()"]).pid
    if child == 0:
        stream.write(b"a child's words")
        stream.flush()
        time.sleep(60)
    print(child, flush=True)
    time.sleep(60)
"""


def _wait_for_lock(stream: BinaryIO) -> None:
    """Locks a file; a child that was forked just now lets go of it with its first steps, for which it needs a core."""
    for _ in range(100):
        try:
            assert lock(stream, "it") == ()
            return
        except OutputInUseError:
            time.sleep(0.1)
    pytest.fail("the child holds the lock")


@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_a_child_that_outlives_its_parent_holds_no_lock(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    asked = [sys.executable, "-c", _PARENT, str(path), kind]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            parent.kill()
            parent.wait(timeout=10)
            os.kill(child, 0)  # it lives
            with path.open("ab") as stream:
                _wait_for_lock(stream)
            assert path.read_bytes() == b""
        finally:
            os.kill(child, signal.SIGKILL)
