"""A .pth file is read without running anything in it, or refused by name; nothing falls back to an unsafe way."""

from __future__ import annotations

import argparse
import io
import pickle
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlinstruct.conversion.pickle_file import load_pickle
from vlinstruct.errors import CheckpointError


class Program:
    """Runs a function when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.arguments


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.pth"


@pytest.fixture
def good(path: Path) -> Path:
    torch.save({"model": {"a": torch.arange(600.0).reshape(20, 30)}, "epoch": 3}, path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_pickle(path)
    assert len(caught.value.message) <= 290
    assert caught.value.message.isprintable()
    assert "weights_only" not in caught.value.message
    return caught.value.message


def rewritten(path: Path, change: Callable[[zipfile.ZipFile, str, bytes], None]) -> None:
    """Writes a zip anew, entry by entry."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            change(archive, name, content)


def test_tensors_are_views_of_the_mapped_file(good: Path) -> None:
    values = load_pickle(good)
    assert torch.equal(values["model"]["a"], torch.arange(600.0).reshape(20, 30))
    assert values["epoch"] == 3


@pytest.mark.parametrize("name", ["posix.system", "builtins.exec", "builtins.eval", "Popen"])
def test_a_program_in_a_checkpoint_is_refused_by_name_and_not_run(path: Path, canary: Path, name: str) -> None:
    import os
    import subprocess

    command = f"open({str(canary)!r}, 'w').close()"
    programs = {
        "posix.system": Program(os.system, f"touch {canary}"),
        "builtins.exec": Program(exec, command),
        "builtins.eval": Program(eval, command.replace(".close()", "")),
        "Popen": Program(subprocess.Popen, ["touch", str(canary)]),
    }
    for content in ({"model": {"a": programs[name]}}, {"model": {"a": torch.zeros(1)}, "config": programs[name]}):
        torch.save(content, path)
        assert name in refusal(path)
    time.sleep(0.05)
    assert not canary.exists()


def raw_pickle(path: Path, canary: Path) -> None:
    import os

    path.write_bytes(pickle.dumps(Program(os.system, f"touch {canary}")))


def old_pickle(path: Path, canary: Path) -> None:
    import os

    path.write_bytes(pickle.dumps({"a": Program(os.system, f"touch {canary}")}, protocol=0))


def before_1_6(path: Path, canary: Path) -> None:
    torch.save({"model": {"a": torch.zeros(3)}}, path, _use_new_zipfile_serialization=False)


def tar(path: Path, canary: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())


def torch_script(path: Path, canary: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__/model.py", "version"):
            archive.writestr(f"model/{name}", b"")


def any_zip(path: Path, canary: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"hello")


def safetensors(path: Path, canary: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(3)}, path)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (raw_pickle, "a raw pickle, which is a program"),
        (old_pickle, "a raw pickle, which is a program"),
        (before_1_6, "PyTorch before 1.6 wrote it"),
        (tar, "a tar file"),
        (torch_script, "a TorchScript archive"),
        (any_zip, "a zip that torch.save did not write"),
        (safetensors, "a safetensors file"),
        (lambda path, canary: path.write_bytes(b"\x7fELF" + bytes(50)), "no file of torch.save"),
    ],
)
def test_other_formats_are_refused_each_with_its_name(
    path: Path, canary: Path, write: Callable[[Path, Path], None], words: str
) -> None:
    write(path, canary)
    assert words in refusal(path)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (argparse.Namespace(lr=1e-5), "argparse.Namespace"),
        (np.float64(1.5), "numpy"),
        (Path("a"), "pathlib"),
    ],
)
def test_what_is_more_than_tensors_is_refused_with_the_way_to_save_it(path: Path, content: Any, name: str) -> None:
    torch.save({"model": {"a": torch.zeros(3)}, "config": content}, path)
    message = refusal(path)
    assert name in message
    assert "save {'model': its state_dict} again" in message


def test_a_compressed_entry_is_refused_before_it_is_unpacked(path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(2_000_000)}}, path)
    rewritten(path, lambda archive, name, content: archive.writestr(name, content, zipfile.ZIP_DEFLATED))
    assert path.stat().st_size < 100_000
    assert "compressed" in refusal(path)


def test_an_entry_that_claims_more_than_the_file_has_is_refused(good: Path) -> None:
    content = bytearray(good.read_bytes())
    entry = content.index(b"PK\x01\x02")  # the central directory, where sizes are 20 bytes in
    content[entry + 20 : entry + 28] = (0xFFFFFFF0).to_bytes(4, "little") * 2
    good.write_bytes(content)
    assert "claim 42949" in refusal(good)


def test_a_tensor_that_claims_more_than_its_entry_is_never_allocated(good: Path) -> None:
    """8 GB declared in the pickle: 2e9 numbers in place of 600, and as many rows."""
    claimed = b"J" + (2 * 10**9).to_bytes(4, "little")
    rewritten(good, lambda archive, name, content: archive.writestr(name, content.replace(b"M\x58\x02", claimed)))
    before = max_resident_bytes()
    with suppress(CheckpointError):
        assert load_pickle(good)["model"]["a"].shape == (20, 30)
    assert max_resident_bytes() - before < 50_000_000


def max_resident_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "checkpoint/../../x", "C:\\x", "checkpoint\\..\\x", "checkpoint/data/0"]
)
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_entries_that_lead_outside_or_occur_twice_are_refused(good: Path, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(good, "a") as archive:
        archive.writestr(name, b"x")
    assert "lead out of it or occur twice" in refusal(good)
    assert list(tmp_path.iterdir()) == [good]


def test_far_more_entries_than_any_model_are_refused(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlinstruct.conversion.pickle_file._MAX_ENTRIES", 3)
    assert "entries, more than any model" in refusal(good)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_says_so(good: Path, share: float) -> None:
    content = good.read_bytes()
    good.write_bytes(content[: max(int(len(content) * share), 2)])
    assert "truncated checkpoint" in refusal(good)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html></html>", "a web page"),
    ],
)
def test_what_a_download_leaves_is_recognised(path: Path, content: bytes, words: str) -> None:
    path.write_bytes(content)
    assert words in refusal(path)


def test_a_damaged_pickle_is_refused(good: Path) -> None:
    content = bytearray(good.read_bytes())
    start = content.index(b"\x80\x02}")
    content[start + 2 : start + 40] = b"\xff" * 38
    good.write_bytes(content)
    assert "damaged checkpoint" in refusal(good)


def test_what_torch_thinks_of_a_damaged_pickle_is_not_said(good: Path) -> None:
    content = good.read_bytes()
    good.write_bytes(content.replace(b"\x80\x02}", b"\x80\x58}"))
    with warnings.catch_warnings(record=True, action="always") as said, suppress(CheckpointError):
        load_pickle(good)
    assert said == []


def test_anything_but_a_dictionary_is_refused(path: Path) -> None:
    torch.save([torch.zeros(3)], path)
    assert "it holds a list" in refusal(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "Is a directory" in refusal(tmp_path)


def test_random_damage_never_gets_past_our_errors(good: Path) -> None:
    """Whatever a byte of the file becomes, it is read or refused."""
    content = good.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(content)
        for place in generator.integers(0, len(content), 3):
            damaged[place] = generator.integers(0, 256)
        good.write_bytes(damaged)
        with suppress(CheckpointError):
            load_pickle(good)
