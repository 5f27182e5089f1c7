"""The hub's cache and the hub: what is missing, damaged or out of reach is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from vlinstruct.backends.registry import BACKBONES
from vlinstruct.doctor import cache
from vlinstruct.doctor.finding import DoctorSettings, Finding

SETTINGS = DoctorSettings(backbone="mini", offline=True)
XL = "Salesforce/instructblip-flan-t5-xl"
Check = Callable[[DoctorSettings], Iterator[Finding]]


def only(check: Check, settings: DoctorSettings = SETTINGS) -> Finding:
    (finding,) = check(settings)
    return finding


def worst(check: Check, settings: DoctorSettings = SETTINGS) -> Finding:
    """Returns the one finding that is not ok."""
    (finding,) = [one for one in check(settings) if one.level != "ok"]
    assert finding.fix
    return finding


def test_a_cache_that_cannot_be_written_is_a_notice_until_something_must_be_downloaded(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert only(cache.cache).found == f"{hub_cache}, can be written"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written: nothing can be downloaded" in worst(cache.cache).found
    finding = worst(cache.cache, DoctorSettings(backbone="vicuna-7b"))
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
    assert worst(cache.disk, DoctorSettings(backbone="vicuna-13b")).found == "20.0 GB free, vicuna-13b takes 57 GB"


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
    assert "bytes instead of" in finding.found
    assert "Delete it and run again" in str(finding.fix)
    weights.write_bytes(b"")
    assert "model.safetensors is empty" in worst(cache.cached_backbones).found
    weights.unlink()
    weights.symlink_to(snapshot / "gone")
    assert any("links to a file that no longer exists" in one.found for one in cache.cached_backbones(SETTINGS))


def test_a_download_that_broke_off_is_named(snapshot: Path) -> None:
    (snapshot / "model.safetensors").unlink()
    assert "only a part of it is in the cache" in worst(cache.cached_backbones).found
    (snapshot.parent.parent / "blobs" / "abc.incomplete").write_bytes(b"half")
    assert any("1 files" in one.found for one in cache.cached_backbones(DoctorSettings(backbone="flant5-xl")))


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
    finding = only(cache.hub, DoctorSettings(backbone="mini"))
    assert finding.level == level
    assert words in finding.found
    assert "0x" not in finding.found
    monkeypatch.setattr("huggingface_hub.get_session", lambda: pytest.fail("it was asked"))
    assert only(cache.hub).found == "not contacted: offline"


def test_every_paper_backbone_has_a_download_size() -> None:
    assert all(one.download_gb > 0 for one in BACKBONES.values() if one.hub_id)
