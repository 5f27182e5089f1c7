"""A lock goes with the process that took it, whatever children it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vlinstruct.files import lock

_PARENT = """
import os, subprocess, sys, time
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
                assert lock(stream, "it") == ()
            assert path.read_bytes() == b""
        finally:
            os.kill(child, signal.SIGKILL)
