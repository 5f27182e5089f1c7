"""Our plug-in as lmms-eval would load it, on a stand-in for lmms-eval."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from . import harness


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of our models."""
    for name, module in harness.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    harness.forget_ours()
    yield importlib.import_module("vlinstruct.integrations.lmms_eval.model")
    harness.forget_ours()


@pytest.fixture(params=["t5", "llama"])
def folder(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> Path:
    """A tiny backbone of each kind."""
    return tiny_folders[request.param]


@pytest.fixture
def make(plugin: ModuleType, folder: Path) -> Callable[..., Any]:
    """Makes a model over documents."""

    def make_model(documents: Sequence[harness.Doc], name: str = "Simple", **model_args: Any) -> Any:
        model = getattr(plugin, name)(pretrained=str(folder), device="cpu", **model_args)
        model.task_dict = {harness.TASK: {harness.SPLIT: documents}}
        return model

    return make_model
