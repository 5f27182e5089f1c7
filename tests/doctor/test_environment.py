"""Devices, variables, the cache and the hub: what is wrong with them is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from vlinstruct.backends.registry import BACKBONES
from vlinstruct.doctor import cache, devices, environment, variables
from vlinstruct.doctor.finding import Finding
from vlinstruct.doctor.wanted import Wanted

WANTED = Wanted(backbone="mini", offline=True)
XL = "Salesforce/instructblip-flan-t5-xl"
Check = Callable[[Wanted], Iterator[Finding]]


def only(check: Check, wanted: Wanted = WANTED) -> Finding:
    (finding,) = check(wanted)
    return finding


def worst(check: Check, wanted: Wanted = WANTED) -> Finding:
    """Returns the one finding that is not ok."""
    (finding,) = [one for one in check(wanted) if one.level != "ok"]
    assert finding.fix
    return finding


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Two GPUs; the dictionary changes them."""
    values: dict[str, object] = {"capability": (9, 0), "available": True}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: values["available"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (70 * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"NVIDIA H100 {index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: values["capability"])
    return values


def test_nothing_is_a_problem_here() -> None:
    found = environment.examine_environment(WANTED)
    assert [one for one in found if one.level == "problem"] == []
    assert {"python", "package", "processor", "gpu", "device", "disk", "cache"} <= {one.check for one in found}


def test_every_gpu_has_its_name_memory_and_number_type(gpus: dict[str, object]) -> None:
    first, second = devices.gpu(WANTED)
    assert first.found == "cuda:0 NVIDIA H100 0, 70.0 of 80.0 GB free, bfloat16"
    assert second.found.startswith("cuda:1 NVIDIA H100 1")
    gpus["capability"] = (7, 5)
    first, _ = devices.gpu(WANTED)
    assert "no bfloat16" in first.found


def test_no_gpu_is_fine(gpus: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    gpus["available"] = False
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert only(devices.gpu).found == "none, the CPU computes"


@pytest.mark.parametrize(
    ("cuda", "visible", "words"),
    [
        (None, None, "this torch is a CPU build"),
        ("13.0", "99", "CUDA_VISIBLE_DEVICES is '99'"),
        ("13.0", None, "sees none"),
    ],
)
def test_a_gpu_that_is_not_seen_is_explained(
    gpus: dict[str, object], monkeypatch: pytest.MonkeyPatch, cuda: str | None, visible: str | None, words: str
) -> None:
    gpus["available"] = False
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert words in worst(devices.gpu).found


def test_cores_threads_and_memory_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "available_bytes", lambda: 5 * 10**9)
    assert only(devices.processor).found.endswith("threads of torch: 1, 5.0 GB of memory free")
    monkeypatch.setattr(devices, "available_bytes", lambda: 10**8)
    assert worst(devices.processor).found == "only 0.1 GB are free"


def test_a_device_that_is_not_here_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(devices.device, Wanted(backbone="mini", device="cpu")).found == "commands compute on cpu in float32"
    assert worst(devices.device, Wanted(backbone="mini", device="cuda:99")).found.startswith("--device is 'cuda:99'")
    monkeypatch.setenv("VLINSTRUCT_DEVICE", "nonsense")
    for wanted in (Wanted(backbone="mini", device="cpu"), Wanted(backbone="mini", device="nonsense")):
        finding = worst(devices.device, wanted)
        assert finding.level == "problem"
        assert finding.found.startswith("$VLINSTRUCT_DEVICE is 'nonsense'")


def test_a_switch_that_is_neither_on_nor_off_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "maybe")
    finding = worst(variables.variables)
    assert (finding.check, finding.level) == ("$HF_HUB_OFFLINE", "notice")
    assert "'maybe' is neither on nor off, and is taken for off" in finding.found
    for value in ("1", "true", "0", "off", ""):
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
        assert only(variables.variables).level == "ok"


def test_a_default_backbone_that_is_none_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLINSTRUCT_BACKBONE", "flant5-xll")
    assert worst(variables.variables).level == "problem"
    monkeypatch.setenv("VLINSTRUCT_BACKBONE", "vicuna-7b")
    assert only(variables.variables).level == "ok"


def test_an_endpoint_that_is_no_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "huggingface.co")
    assert worst(variables.variables).check == "$HF_ENDPOINT"


def test_a_token_is_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert not any("hf_secret" in str(one) for one in environment.examine_environment(WANTED))


def test_a_cache_that_cannot_be_written_is_a_notice_until_something_must_be_downloaded(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert only(cache.cache).found == f"{hub_cache}, can be written"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written: nothing can be downloaded" in worst(cache.cache).found
    finding = worst(cache.cache, Wanted(backbone="vicuna-7b"))
    assert finding.level == "problem"
    assert "vicuna-7b has to be downloaded" in finding.found


@pytest.mark.parametrize(
    ("place", "words"), [("file/hub", "is no folder"), ("~/hub", "is no absolute path (is HOME set?)")]
)
def test_a_cache_that_cannot_be_made_is_named(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch, place: str, words: str
) -> None:
    (hub_cache.parent / "file").write_bytes(b"")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", place if place[0] == "~" else str(hub_cache.parent / place))
    assert words in worst(cache.cache).found


def test_a_disk_too_small_for_the_backbone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil._ntuple_diskusage(10**12, 0, 20 * 10**9)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert only(cache.disk).found == "20.0 GB free where the cache lies"
    assert worst(cache.disk, Wanted(backbone="vicuna-13b")).found == "20.0 GB free, vicuna-13b takes 57 GB"


@pytest.fixture
def snapshot(hub_cache: Path, folder: Path) -> Path:
    """FlanT5-XL's repository in the cache, with tiny weights."""
    repository = hub_cache / f"models--{XL.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "blobs").mkdir()
    return Path(shutil.copytree(folder, repository / "snapshots" / ("a" * 40)))


def test_the_known_backbones_in_the_cache_are_listed(snapshot: Path) -> None:
    assert only(cache.cached_backbones).found == "flant5-xl"


def test_what_of_them_is_not_whole_is_named(snapshot: Path) -> None:
    weights = snapshot / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    finding = worst(cache.cached_backbones)
    assert finding.check == "cached flant5-xl"
    assert "bytes in place of" in finding.found
    assert "Delete it and run again" in str(finding.fix)
    weights.write_bytes(b"")
    assert "model.safetensors is empty" in worst(cache.cached_backbones).found
    weights.unlink()
    weights.symlink_to(snapshot / "gone")
    assert any("a link to a file that is gone" in one.found for one in cache.cached_backbones(WANTED))


def test_a_download_that_broke_off_is_named(snapshot: Path) -> None:
    (snapshot / "model.safetensors").unlink()
    assert "only a part of it is in the cache" in worst(cache.cached_backbones).found
    (snapshot.parent.parent / "blobs" / "abc.incomplete").write_bytes(b"half")
    assert any("1 files" in one.found for one in cache.cached_backbones(Wanted(backbone="flant5-xl")))


class Session:
    """Answers for the hub, or fails."""

    def __init__(self, outcome: int | Exception) -> None:
        self.outcome = outcome

    @property
    def status_code(self) -> int:
        assert isinstance(self.outcome, int)
        return self.outcome

    def head(self, url: str, timeout: float) -> Session:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self


@pytest.mark.parametrize(
    ("outcome", "level", "words"),
    [
        (200, "ok", "answers"),
        (503, "notice", "a problem (503)"),
        (ConnectionError("at 0x7f"), "notice", "(ConnectionError)"),
    ],
)
def test_the_hub_is_asked_unless_offline(
    monkeypatch: pytest.MonkeyPatch, outcome: int | Exception, level: str, words: str
) -> None:
    monkeypatch.setattr("huggingface_hub.get_session", lambda: Session(outcome))
    finding = only(cache.hub, Wanted(backbone="mini"))
    assert finding.level == level
    assert words in finding.found
    assert "0x" not in finding.found
    monkeypatch.setattr("huggingface_hub.get_session", lambda: pytest.fail("it was asked"))
    assert only(cache.hub).found == "not asked: offline"


def test_a_library_that_cannot_be_imported_is_a_problem_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(wanted: Wanted) -> Iterator[Finding]:
        raise ImportError("libcudart.so")

    monkeypatch.setattr(environment, "CHECKS", (fail, cache.hub))
    broken, hub = environment.examine_environment(WANTED)
    assert (broken.check, broken.level, broken.found) == ("fail", "problem", "this check failed (ImportError)")
    assert hub.level == "ok"


def test_every_paper_backbone_has_a_download_size() -> None:
    assert all(one.download_gb > 0 for one in BACKBONES.values() if one.hub_id)
