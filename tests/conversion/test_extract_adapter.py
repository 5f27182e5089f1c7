"""The layers that a fine-tuning's checkpoint holds become an adapter that loads onto the backbone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lavis_files
import pytest
import tiny_models
import torch
from torch import Tensor

import vlinstruct as vli
from vlinstruct.backends.instructblip.adapter import read_adapter_config
from vlinstruct.conversion.adapters import extract_adapter
from vlinstruct.conversion.model_folder import Writing
from vlinstruct.errors import CheckpointError, InputError

PROJECTION = {"t5": "t5_proj", "llama": "llm_proj"}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "adapter"


def trained(kind: str) -> dict[str, Tensor]:
    """What the authors' training saves: the projection, and ln_vision, which trains although it is not said."""
    width = tiny_models.tiny_config(kind)["text_config"]["d_model" if kind == "t5" else "hidden_size"]
    names = {"weight": torch.randn(width, 24), "bias": torch.randn(width)}
    layers = {f"{PROJECTION[kind]}.{name}": tensor for name, tensor in names.items()}
    return {**layers, "ln_vision.weight": torch.randn(32), "ln_vision.bias": torch.randn(32)}


def convert(kind: str, target: Path, model: dict[str, Any], *, use_ema: bool = False, force: bool = False) -> list[str]:
    notices: list[str] = []
    path = lavis_files.save(target.parent / "checkpoint_best.pth", model, epoch=2)
    writing = Writing(target=target, notify=notices.append, force=force)
    extract_adapter([path], tiny_models.tiny_config(kind), writing, use_ema=use_ema)
    return notices


@pytest.mark.parametrize("kind", ["t5", "llama"])
@pytest.mark.parametrize("use_ema", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_adapter_brings_the_trained_layers(
    tiny_folders: dict[str, Path], target: Path, kind: str, use_ema: bool, prefix: str
) -> None:
    layers = trained(kind)
    notices = convert(kind, target, {prefix + name: tensor for name, tensor in layers.items()}, use_ema=use_ema)
    model = vli.load(str(tiny_folders[kind]), adapter=target, device="cpu").backend.network
    assert torch.equal(model.language_projection.weight, layers[f"{PROJECTION[kind]}.weight"])
    assert torch.equal(model.vision_model.post_layernorm.bias, layers["ln_vision.bias"])
    assert model.use_ema == use_ema
    assert read_adapter_config(target).training == {"converted_from": "checkpoint_best.pth"}
    assert notices == [
        "checkpoint_best.pth: 4 entries beside 'model' are ignored: optimizer, config, scaler, epoch",
    ]


def test_what_an_adapter_cannot_hold_is_said_with_its_count(target: Path) -> None:
    others = {f"Qformer.bert.encoder.layer.{n}.output.dense.bias": torch.zeros(24) for n in range(7)}
    notices = convert("t5", target, {**trained("t5"), **others, "mystery": torch.zeros(3)})
    assert (
        "8 tensors are left out, an adapter cannot hold them (qformer.encoder.layer.0.output.dense.bias" in notices[1]
    )
    assert notices[1].endswith("If they were trained too, make a model of the file.")


def test_the_projection_alone_is_an_adapter(target: Path) -> None:
    convert("t5", target, {name: tensor for name, tensor in trained("t5").items() if "proj" in name})
    assert read_adapter_config(target).layers == ["projection"]


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("t5", {"t5_proj.weight": None, "t5_proj.bias": None}, "no projection in it"),
        ("t5", {"t5_proj.bias": None}, "1 missing (language_projection.bias)"),
        ("t5", {"t5_proj.bias": torch.zeros(5)}, "1 wrong shape (language_projection.bias (5,) instead of (28,))"),
        ("t5", {"t5_proj.bias": torch.full((28,), torch.nan)}, "1 tensors in checkpoint_best.pth hold NaN or infinity"),
        ("t5", {"t5_proj.bias": torch.zeros(28, dtype=torch.int32)}, "language_projection.bias int32"),
        ("llama", {}, "it is for a t5, the configuration has a llama"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    target: Path, kind: str, changes: dict[str, Tensor | None], words: str
) -> None:
    model = {name: tensor for name, tensor in {**trained("t5"), **changes}.items() if tensor is not None}
    with pytest.raises(CheckpointError) as caught:
        convert(kind, target, model)
    assert words in caught.value.message
    assert not target.exists()


def test_an_adapter_is_replaced_with_force_only(target: Path) -> None:
    convert("t5", target, trained("t5"))
    with pytest.raises(InputError, match="it exists"):
        convert("t5", target, trained("t5"), use_ema=True)
    assert not json.loads((target / "alignment_config.json").read_text())["use_ema"]
    convert("t5", target, trained("t5"), use_ema=True, force=True)
    assert json.loads((target / "alignment_config.json").read_text())["use_ema"]
