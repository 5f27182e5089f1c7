"""What a model of another family takes is told from its configuration; one that does not fit is refused unread."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import vli
from PIL import Image

import vlinstruct
from vlinstruct.backends.memory import Load
from vlinstruct.backends.registry import BACKBONES, instructblip_backbones
from vlinstruct.backends.transformers import memory
from vlinstruct.backends.transformers.memory import TransformersNeeds
from vlinstruct.backends.transformers.opening import _beside_decoder
from vlinstruct.errors import ResourceError
from vlinstruct.weights.memory import stored_shapes

OTHERS = [name for name, backbone in BACKBONES.items() if backbone not in instructblip_backbones()]
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def needs_of(folder: Path) -> TransformersNeeds:
    return TransformersNeeds(json.loads((folder / "config.json").read_text()), name="it")


@pytest.mark.parametrize("name", OTHERS)
def test_sizes_of_names_are_those_of_their_configurations(name: str) -> None:
    entry, config = BACKBONES[name], BACKBONES[name].config()
    counted = TransformersNeeds(config, name=name).weights.total / 1e9
    assert entry.parameters == pytest.approx(counted, rel=0.03)
    assert entry.download_gb == pytest.approx(counted * _BYTES[config["dtype"]], rel=0.03)
    assert entry.hub_id is not None
    assert entry.licence


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_5", "llava", "internvl", "paligemma", "gemma3", "gemma4"])
def test_headers_configurations_and_loaded_models_have_the_same_numbers(
    name: str, folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForMultimodalLM

    monkeypatch.setattr(memory, "_SIDE", 32)
    needs, folder = needs_of(folder_of(name)), folder_of(name)
    # A file holds a few buffers, too.
    assert (
        needs.weights.total
        <= sum(math.prod(shape) for _, shape in stored_shapes(folder))
        <= 1.001 * needs.weights.total
    )
    model = AutoModelForMultimodalLM.from_pretrained(folder)
    assert needs.weights.total == sum(weight.numel() for weight in model.parameters())
    kept = _beside_decoder(model)
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    quantized = [layer for name, layer in linear.items() if not any(f"{name}.".startswith(f"{part}.") for part in kept)]
    assert needs.weights.quantizable == sum(layer.weight.numel() for layer in quantized) > 0
    input_ids = torch.full((2, needs.media_tokens + 6), 5)
    with torch.no_grad():
        outputs = model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), use_cache=True)
    cache: Any = outputs.get("cache") or outputs["past_key_values"]
    layers = [layer for layer in cache.layers if getattr(layer, "keys", None) is not None]
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    counted = needs.cache_bytes(Load(rows=2, prompt_tokens=4, new_tokens=2), 4)
    # A window keeps one position less than it sees.
    windows = sum((layer.keys.nbytes + layer.values.nbytes) // layer.keys.shape[2] for layer in layers)
    assert real <= counted <= real + (windows if name.startswith("gemma") else 0)


def test_more_at_once_takes_more() -> None:
    needs = TransformersNeeds(BACKBONES["smolvlm2-256m"].config(), name="it")
    loads = [Load(rows=rows, prompt_tokens=tokens) for rows, tokens in ((1, 9), (1, 999), (8, 999))]
    for sizes in ([needs.cache_bytes(load, 2) for load in loads], [needs.activation_bytes(load, 2) for load in loads]):
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[-1]


def test_a_folder_that_does_not_fit_is_refused_before_it_is_read(
    folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of("qwen2_5_vl")
    needs = needs_of(folder)

    def unread(*args: object, **kwargs: object) -> None:
        pytest.fail("it was read")

    # Room for half the weights, and for what is computed.
    room = needs.weights.num_bytes(2) + needs.cache_bytes(Load(), 4) + needs.activation_bytes(Load(), 4)
    monkeypatch.setattr(memory, "free_bytes", lambda device: room)
    monkeypatch.setattr("transformers.AutoModelForMultimodalLM.from_pretrained", unread)
    with pytest.raises(ResourceError, match=r"of memory are free\. Use --dtype bfloat16 \(0\.0 GB\)") as caught:
        vlinstruct.load(str(folder), device="cpu")
    assert str(folder) in caught.value.message
    assert "\n" not in caught.value.message


def test_a_folder_is_planned_by_its_configuration_alone(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((folder_of("gemma3") / "config.json").read_text())
    plan = vlinstruct.plan_memory(str(tmp_path))
    assert plan.weights.total == sum(plan.weights.parts.values()) == 67456
    lines = vli("backbones", tmp_path, "--batch-size", "2").text.splitlines()
    assert lines[2].startswith("2 x (128 + 64) tokens at once, 4 more a picture")
    assert max(map(len, lines[1:])) <= 100


def test_a_repository_is_planned_by_its_cached_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder_of: Callable[[str], Path]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "its shape is not known here" in vli("backbones", "somebody/model").refusal(5)
    snapshot = tmp_path / "models--somebody--model" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--somebody--model" / "refs").mkdir()
    (tmp_path / "models--somebody--model" / "refs" / "main").write_text("0")
    config = json.loads((folder_of("gemma3") / "config.json").read_text())
    (snapshot / "config.json").write_text(json.dumps(config))
    assert sum(vli("backbones", "somebody/model", "--json").records[0]["parameters"].values()) == 67456
    for changed, why in (
        ({"model_type": "none"}, "knows no models of kind none"),
        ({"model_type": "bert"}, "cannot plan memory"),
        ({"auto_map": {"AutoConfig": "code.Config"}}, "asks for code of its own"),
        ({"text_config": {**config["text_config"], "hidden_size": "wide"}}, "cannot plan memory"),
    ):
        (snapshot / "config.json").write_text(json.dumps({**config, **changed}))
        assert why in vli("backbones", "somebody/model").refusal(5)


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (4, ["ask", "a.png", "what?", "--adapter", "mini-ema"]),
        (4, ["ask", "a.png", "what?", "--image-size", "64"]),
        (4, ["bench", "--training"]),
        (5, ["finetune", "--data", "a.json", "--output", "out"]),
        (5, ["convert", "mini-ema", "--to", "merged", "--output", "out"]),
    ],
)
def test_what_only_instructblip_has_is_refused_before_anything_is_downloaded(
    code: int, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    Image.new("RGB", (8, 8)).save("a.png")
    line = vli(*arguments, "--backbone", "smolvlm2-256m").refusal(code)
    assert "smolvlm2-256m" in line
    assert not (tmp_path / "hub").exists()
