"""A file that is written atomically is whole or as it was."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vlinstruct.errors import ResourceError
from vlinstruct.files import held, remove_abandoned, written_atomically


def test_the_new_content_replaces_the_old(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with written_atomically(target) as path:
        path.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(TypeError), written_atomically(target) as path:
        path.write_bytes(b"half" + 1)  # type: ignore[operator]
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_one_of_our_errors(tmp_path: Path) -> None:
    with (
        pytest.raises(ResourceError, match=r"cannot write .*a\.bin: No space left"),
        written_atomically(tmp_path / "a.bin"),
    ):
        raise OSError(28, "No space left on device")


def test_a_rename_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(ResourceError, match="Input/output error"), written_atomically(target) as path:
        path.write_bytes(b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_mode_follows_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with written_atomically(tmp_path / "a.bin") as path:
            path.write_bytes(b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == mode


def test_what_a_killed_run_left_is_removed_and_what_is_written_now_is_not(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    (tmp_path / ".tmp-abcd1234a.bin").write_bytes(b"half")
    others = [tmp_path / ".tmp-abcd1234b.bin", tmp_path / ".tmp-notes-a.bin", tmp_path / "tmp-abcd1234a.bin"]
    for other in others:
        other.write_bytes(b"somebody else's")
    with written_atomically(target) as first:
        with written_atomically(target) as second:
            second.write_bytes(b"second")
        first.write_bytes(b"first")
    assert target.read_bytes() == b"first"
    assert sorted(tmp_path.iterdir()) == sorted([target, *others])


def test_a_temporary_file_that_another_run_took_for_abandoned_is_made_again(tmp_path: Path) -> None:
    made = iter([tmp_path / "gone", tmp_path / "there"])
    (tmp_path / "there").touch()
    with held(lambda: next(made)) as path:
        assert path == tmp_path / "there"
        assert remove_abandoned([path]) == [path]
    assert remove_abandoned([path, tmp_path / "gone"]) == []
    assert not path.exists()
