"""A tiny backbone to be damaged, an empty cache of the hub, and no connection."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

VARIABLES = ("VLINSTRUCT_BACKBONE", "VLINSTRUCT_DEVICE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "CUDA_VISIBLE_DEVICES")


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


@pytest.fixture
def folder(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folders["t5"], tmp_path / "model"))
