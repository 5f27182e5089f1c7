"""A folder that is written atomically is whole or as it was, whoever else writes and whenever the run is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vlinstruct.conversion import atomic_folder
from vlinstruct.conversion.atomic_folder import folder_written_atomically, remove_leftovers, require_replaceable
from vlinstruct.errors import InputError, ResourceError

WRITER = """
import sys, time
from pathlib import Path
from vlinstruct.conversion.atomic_folder import folder_written_atomically
from vlinstruct.errors import InputError
target, content, force = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "force"
try:
    with folder_written_atomically(target, force=force) as folder:
        (folder / "config.json").write_text(content)
        print("begun", flush=True)
        sys.stdin.readline()
        (folder / "weights").write_text(content)
except InputError as error:
    print(error.message, flush=True)
"""


def content(folder: Path) -> set[str]:
    """What the files of a folder hold; one writer's only if it is whole."""
    assert {path.name for path in folder.iterdir()} == {"config.json", "weights"}
    return {path.read_text() for path in folder.iterdir()}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("config.json", "weights"):
        (folder / name).write_text("old")
    return folder


def start(target: Path, content: str, force: str = "") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target), content, force],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate("go on\n", timeout=20)
    assert process.returncode == 0
    return said


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    with folder_written_atomically(tmp_path / "a" / "out") as folder:
        (folder / "config.json").write_text("new")
        (folder / "weights").write_text("new")
        assert not (tmp_path / "a" / "out").exists()
    assert content(tmp_path / "a" / "out") == {"new"}


def test_an_existing_folder_is_refused_before_anything_is_written(old: Path) -> None:
    with pytest.raises(InputError, match="it exists"), folder_written_atomically(old):
        pytest.fail("the block was entered")
    assert content(old) == {"old"}


def test_with_force_it_is_replaced_and_nothing_is_left_over(old: Path) -> None:
    with folder_written_atomically(old, force=True) as folder:
        (folder / "config.json").write_text("new")
        assert content(old) == {"old"}
        (folder / "weights").write_text("new")
    assert content(old) == {"new"}
    assert list(old.parent.iterdir()) == [old]


def test_force_replaces_models_only(tmp_path: Path) -> None:
    """`--force -o ~` must not cost a home."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("x")
    for name in ("home", "file"):
        with pytest.raises(InputError, match="something else than a model"):
            require_replaceable(tmp_path / name, force=True)


def test_an_empty_folder_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with folder_written_atomically(tmp_path / "out") as folder:
        (folder / "config.json").write_text("new")
    assert (tmp_path / "out" / "config.json").read_text() == "new"


def test_a_link_is_followed(old: Path) -> None:
    link = old.parent / "link"
    link.symlink_to(old)
    with folder_written_atomically(link, force=True) as folder:
        for name in ("config.json", "weights"):
            (folder / name).write_text("new")
    assert link.is_symlink()
    assert content(old) == {"new"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), ValueError()])
def test_a_failed_run_leaves_the_old_folder_and_nothing_else(old: Path, error: BaseException) -> None:
    def fail() -> None:
        with folder_written_atomically(old, force=True) as folder:
            (folder / "config.json").write_text("half")
            raise error

    with pytest.raises(ResourceError if isinstance(error, OSError) else type(error)):
        fail()
    assert content(old) == {"old"}
    assert list(old.parent.iterdir()) == [old]


def test_what_a_killed_run_left_is_removed_and_what_is_written_now_is_not(old: Path) -> None:
    killed, living = start(old, "new", "force"), start(old, "newer", "force")
    assert len(remove_leftovers(old)) == 2
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert content(old) == {"old"}
    (left,) = remove_leftovers(old)
    assert [path for path in old.parent.iterdir() if path != old] == [left]
    finish(living)
    assert content(old) == {"newer"}
    assert remove_leftovers(old) == []


def test_an_old_folder_that_was_put_aside_is_told_and_never_removed(old: Path) -> None:
    aside = old.rename(old.parent / ".old-out-12345678")
    assert remove_leftovers(old) == [aside]
    assert content(aside) == {"old"}


@pytest.mark.parametrize("in_one_step", [True, False])
def test_an_exchange_works_where_the_system_has_none(
    old: Path, monkeypatch: pytest.MonkeyPatch, in_one_step: bool
) -> None:
    if not in_one_step:
        monkeypatch.setattr(atomic_folder, "_exchange", lambda first, second: False)
    with folder_written_atomically(old, force=True) as folder:
        for name in ("config.json", "weights"):
            (folder / name).write_text("new")
    assert content(old) == {"new"}
    assert list(old.parent.iterdir()) == [old]


def test_of_two_runs_into_one_target_one_wins(tmp_path: Path) -> None:
    first, second = (start(tmp_path / "out", name) for name in ("first", "second"))
    assert finish(first) == ""
    assert "it exists" in finish(second)
    assert content(tmp_path / "out") == {"first"}
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_with_force_the_last_one_wins_and_the_folder_is_whole(old: Path) -> None:
    first, second = (start(old, name, "force") for name in ("first", "second"))
    assert finish(second) == ""
    assert content(old) == {"second"}
    assert finish(first) == ""
    assert content(old) == {"first"}
    assert list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_modes_follow_the_umask(tmp_path: Path, umask: int, file_mode: int, folder_mode: int) -> None:
    before = os.umask(umask)
    try:
        with folder_written_atomically(tmp_path / "out") as folder:
            (folder / "sub").mkdir(mode=0o700)
            (folder / "sub" / "a").write_text("x")
    finally:
        os.umask(before)
    for path, mode in {"": folder_mode, "sub": folder_mode, "sub/a": file_mode}.items():
        assert (tmp_path / "out" / path).stat().st_mode & 0o777 == mode


def test_a_place_that_cannot_be_written_is_one_of_our_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(ResourceError, match="cannot write folder"),
        folder_written_atomically(tmp_path / "file" / "out"),
    ):
        pytest.fail("the block was entered")
