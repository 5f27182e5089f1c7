"""A lock goes with the process that took it, whatever children it leaves behind."""

from __future__ import annotations

import errno
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


def test_a_folder_and_a_link_to_it_are_one_to_a_lock(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with (tmp_path / "folder" / ".lock").open("ab") as first, (tmp_path / "link" / ".lock").open("ab") as second:
        assert lock(first, "it") == ()
        with pytest.raises(OutputInUseError, match=f"process {os.getpid()} writes to it"):
            lock(second, "it")


def test_where_nothing_can_be_locked_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with (tmp_path / ".lock").open("ab") as stream:
        (notice,) = lock(stream, "it")
    assert "let only one run write it" in notice
