"""An adapter brings its layers and its EMA flag, or is refused and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import vlinstruct as vli
from vlinstruct.backends.instructblip.adapter import CONFIG_FILE, TENSORS_FILE, load_adapter, save_adapter
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.errors import CheckpointError


@pytest.fixture
def model(tiny_folders: dict[str, Path]) -> InstructBlip:
    return vli.load(str(tiny_folders["t5"]), device="cpu").backend.network


@pytest.fixture
def adapter(model: InstructBlip, tmp_path: Path, tiny_folders: dict[str, Path]) -> Path:
    """Trained elsewhere: another projection, with EMA."""
    other = vli.load(str(tiny_folders["t5"]), device="cpu").backend.network
    other.use_ema = True
    other.language_projection.weight.data.add_(1.0)
    save_adapter(tmp_path / "adapter", other, training={"steps": 3})
    return tmp_path / "adapter"


def test_an_adapter_round_trips(adapter: Path, model: InstructBlip) -> None:
    before = model.language_projection.weight.clone()
    config = load_adapter(adapter, model)
    assert torch.equal(model.language_projection.weight, before + 1.0)
    assert model.use_ema
    assert config.training == {"steps": 3}


def test_load_takes_an_adapter(adapter: Path, tiny_folders: dict[str, Path]) -> None:
    assert vli.load(str(tiny_folders["t5"]), adapter=adapter, device="cpu").backend.network.use_ema
    assert not vli.load(str(tiny_folders["t5"]), device="cpu").backend.network.use_ema


def test_an_adapter_for_another_backbone_is_refused_with_the_differences(
    adapter: Path, tiny_folders: dict[str, Path]
) -> None:
    with pytest.raises(CheckpointError, match="language_model t5 instead of llama"):
        vli.load(str(tiny_folders["llama"]), adapter=adapter, device="cpu")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_is_refused_and_the_model_unchanged(adapter: Path, model: InstructBlip) -> None:
    before = model.language_projection.weight.clone()
    flip_a_bit(adapter / TENSORS_FILE)
    with pytest.raises(CheckpointError, match="damaged adapter"):
        load_adapter(adapter, model)
    assert torch.equal(model.language_projection.weight, before)
    assert not model.use_ema


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"use_ema": "yes"}, "use_ema missing or of the wrong type"),
        ({"sha256": None}, "sha256 missing or of the wrong type"),
    ],
)
def test_a_damaged_adapter_config_is_refused(
    adapter: Path, model: InstructBlip, changes: dict[str, object], words: str
) -> None:
    values = json.loads((adapter / CONFIG_FILE).read_text())
    (adapter / CONFIG_FILE).write_text(json.dumps({**values, **changes}))
    with pytest.raises(CheckpointError, match=words):
        load_adapter(adapter, model)


@pytest.mark.parametrize("name", [CONFIG_FILE, TENSORS_FILE])
def test_a_missing_adapter_file_is_named(adapter: Path, model: InstructBlip, name: str) -> None:
    (adapter / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_adapter(adapter, model)


@pytest.mark.parametrize("layer", [[], {}, ["projection"], 7, None])
def test_layers_that_are_no_names_are_refused(adapter: Path, model: InstructBlip, layer: object) -> None:
    values = json.loads((adapter / CONFIG_FILE).read_text())
    (adapter / CONFIG_FILE).write_text(json.dumps({**values, "layers": [layer]}))
    with pytest.raises(CheckpointError, match="unknown layers"):
        load_adapter(adapter, model)
