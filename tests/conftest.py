"""Fixtures that several rooms share: tiny folders on disk, written once per run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import tiny_models
import torch
from picture_fixtures import encode, image_file, picture, png, png_chunk, refused

__all__ = ["encode", "image_file", "picture", "png", "png_chunk", "refused"]


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One InstructBLIP folder per kind of language model, in transformers' format."""
    root = tmp_path_factory.mktemp("backbones")
    for kind in ("t5", "llama"):
        tiny_models.write_folder(kind, root / kind)
    return {kind: root / kind for kind in ("t5", "llama")}


def pytest_configure() -> None:
    """Tiny models are fastest on one thread, the more so when the machine is busy; torchvision must be importable."""
    torch.set_num_threads(1)
    # The registry's torchvision, beside torch's CPU build, cannot load its compiled operators, and then fails where it
    # registers their shapes, and with it every processor of transformers. None of them needs those operators.
    sys.modules.setdefault("torchvision._meta_registrations", ModuleType("torchvision._meta_registrations"))
