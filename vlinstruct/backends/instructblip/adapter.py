"""Adapters: the trained alignment layers in a folder of a few megabytes.

A format of our own, since PEFT refuses adapters that consist of whole layers alone (`modules_to_save`); LoRA is PEFT's.

alignment_config.json    what it was made for, whether EMA is on, which layers, how it was trained, the checksum
alignment.safetensors    the trained layers, with transformers' parameter names
lora/                    LoRA on the language model in PEFT's format, where it was trained

A folder of PEFT's own, whose LoRA was trained on transformers' whole model, is an adapter, too: it has no alignment
layers, and what it was trained on shows in its matrices alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import empty_model, require_same_tensors
from vlinstruct.backends.instructblip.lora import CONFIG_FILE as LORA_CONFIG_FILE
from vlinstruct.backends.instructblip.lora import TENSORS_FILE as LORA_TENSORS_FILE
from vlinstruct.backends.instructblip.lora import load_lora, read_lora, save_lora
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.backends.registry import ADAPTERS, find_adapter
from vlinstruct.errors import CheckpointError, VlinstructError
from vlinstruct.files import file_sha256, read_json_object, written_atomically
from vlinstruct.weights.safetensors_files import tensors, write_tensors

CONFIG_FILE = "alignment_config.json"
TENSORS_FILE = "alignment.safetensors"
LORA_FOLDER = "lora"
FORMAT = 1
_ATTEMPTS, _PAUSE_S = 8, 0.02  # 0.56 s in all, for a training that is between its two files
LAYERS: Mapping[str, str] = {
    "projection": "language_projection",
    "ln_vision": "vision_model.post_layernorm",
    "cmaa": "cmaa",
}


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """The content of `alignment_config.json`.

    Args:
        backbone: the architecture it was trained on, see `architecture`.
        use_ema: whether CMAA's U_mm follows the queries.
        sha256: of `alignment.safetensors`.
        layers: which layers that holds, keys of `LAYERS`.
        lora: whether there is `lora/`.
        training: facts for people, e.g. data, steps, learning rate.
        format: of this folder.
    """

    backbone: Mapping[str, Any]
    use_ema: bool
    sha256: str
    layers: Sequence[str] = ("projection",)
    lora: bool = False
    training: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT


def architecture(config: InstructBlipConfig) -> dict[str, Any]:
    """Returns what an adapter notes of its backbone: what two must share to take it, and the size of the vocabulary.

    The latter is for people: no layer of an adapter depends on the rows of the token table, and the hub's Vicuna has
    more of them (padded to a multiple of 64) than the same model converted from LAVIS's files.
    """
    return {
        "language_model": config.text_config.model_type,
        "language_model_width": config.text_config.hidden_size,
        "vocab_size": config.text_config.vocab_size,
        "qformer_width": config.qformer_config.hidden_size,
        "vision_width": config.vision_config.hidden_size,
        "num_query_tokens": config.num_query_tokens,
    }


def save_adapter(
    folder: Path,
    model: InstructBlip,
    *,
    layers: Sequence[str] = ("projection",),
    lora: bool = False,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Writes trained layers and the EMA flag as an adapter; each file is whole or as it was.

    Args:
        folder: where to; made if it is missing.
        model: what was trained.
        layers: which of its layers, keys of `LAYERS`.
        lora: whether LoRA was trained on the language model.
        training: facts for people.

    Raises:
        ResourceError: the disk is full or not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if lora:
        save_lora(folder / LORA_FOLDER, model.language_model)
    # The tensors first: a reader who comes between the two finds another checksum, and tries again.
    with written_atomically(folder / TENSORS_FILE) as path:
        write_tensors(layer_parameters(model, layers), path, metadata={"format": "pt"})
    config = AdapterConfig(
        backbone=architecture(model.config),
        use_ema=model.use_ema,
        sha256=file_sha256(folder / TENSORS_FILE, kind="model"),
        layers=list(layers),
        lora=lora,
        training=dict(training or {}),
    )
    with written_atomically(folder / CONFIG_FILE) as path:
        path.write_text(json.dumps(asdict(config), indent=2) + "\n", encoding="utf-8")


def load_adapter(folder: Path, model: InstructBlip) -> AdapterConfig:
    """Puts an adapter's layers into the model and switches EMA as the adapter says.

    Raises:
        CheckpointError: it was made for another backbone, is damaged or incomplete; the model is unchanged then.
    """
    # All that can fail comes before the first number is copied: a refused adapter leaves the model as it was.
    config, layers = read_adapter(folder)
    require_same_architecture(config, model.config, folder)
    cmaa_before = model.cmaa
    model.cmaa = None
    if "cmaa" in config.layers:
        model.learn_cmaa().requires_grad_(False)
    parameters = layer_parameters(model, config.layers)
    try:
        require_same_tensors(layers, parameters, str(folder))
        if config.lora:
            load_lora(lora_folder(folder), model.language_model)
    except VlinstructError:
        model.cmaa = cmaa_before
        raise
    for name, tensor in layers.items():
        parameters[name].data.copy_(tensor)
    model.use_ema = config.use_ema
    return config


def check_adapter(folder: Path, backbone: InstructBlipConfig) -> None:
    """Refuses what `load_adapter` would refuse, before the backbone's weights are read.

    Raises:
        CheckpointError: as `load_adapter`.
    """
    config, layers = read_adapter(folder)
    require_same_architecture(config, backbone, folder)
    model = empty_model(backbone)
    if "cmaa" in config.layers:
        with torch.device("meta"):
            model.learn_cmaa()
    require_same_tensors(layers, layer_parameters(model, config.layers), str(folder))
    if config.lora:
        read_lora(lora_folder(folder), model.language_model)


def read_adapter(folder: Path) -> tuple[AdapterConfig, dict[str, Tensor]]:
    """Reads the configuration and the tensors that belong to it, also while a training replaces both.

    Raises:
        CheckpointError: it is damaged or incomplete.
    """
    if is_peft_folder(folder):
        return read_adapter_config(folder), {}
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt * _PAUSE_S)
        config = read_adapter_config(folder)
        # Two files cannot be replaced at once: the checksum says whether they belong together, before and after the
        # tensors are read.
        if file_sha256(folder / TENSORS_FILE, kind="model") != config.sha256:
            continue
        layers = dict(tensors(folder / TENSORS_FILE))
        if file_sha256(folder / TENSORS_FILE, kind="model") == config.sha256:
            return config, layers
    raise CheckpointError(f"damaged adapter: {folder / TENSORS_FILE} does not have the checksum of {CONFIG_FILE}.")


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Reads `alignment_config.json`; of a folder of PEFT's, makes what it would say.

    Raises:
        CheckpointError: it is missing, damaged or of a newer format.
    """
    if is_peft_folder(folder):
        sha256 = "".join(file_sha256(folder / name, kind="model") for name in (LORA_CONFIG_FILE, LORA_TENSORS_FILE))
        return AdapterConfig(backbone={}, use_ema=False, sha256=sha256, layers=(), lora=True)
    values = read_json_object(folder / CONFIG_FILE)
    if values.get("format") != FORMAT:
        got = values.get("format")
        raise CheckpointError(
            f"{folder / CONFIG_FILE} has format {got!r}, this version reads {FORMAT}", advice="Update vlinstruct."
        )
    kinds = {"backbone": dict, "use_ema": bool, "sha256": str}
    wrong = [name for name, kind in kinds.items() if not isinstance(values.get(name), kind)]
    if wrong:
        raise CheckpointError(f"{folder / CONFIG_FILE} is damaged: {', '.join(wrong)} missing or of the wrong type.")
    layers = values.get("layers", ["projection"])
    # As texts: a list or an object in place of a name cannot be looked up.
    unknown = (
        [str(layer) for layer in layers if str(layer) not in LAYERS] if isinstance(layers, list) else [repr(layers)]
    )
    if unknown:
        raise CheckpointError(
            f"{folder / CONFIG_FILE} names unknown layers: {', '.join(unknown)}", advice="Update vlinstruct."
        )
    return AdapterConfig(
        backbone=values["backbone"],
        use_ema=values["use_ema"],
        sha256=values["sha256"],
        layers=layers,
        lora=bool(values.get("lora", False)),
        training=values.get("training") or {},
    )


def is_peft_folder(folder: Path) -> bool:
    """Says whether an adapter is a LoRA folder as PEFT writes it, and nothing else."""
    return (folder / LORA_CONFIG_FILE).is_file() and not (folder / CONFIG_FILE).is_file()


def lora_folder(folder: Path) -> Path:
    """Returns where an adapter's LoRA lies."""
    return folder if is_peft_folder(folder) else folder / LORA_FOLDER


def layer_parameters(model: InstructBlip, layers: Sequence[str]) -> dict[str, Parameter]:
    """Returns the parameters of layers, keys of `LAYERS`, by transformers' name."""
    places = [LAYERS[layer] for layer in layers]
    return {
        f"{place}.{name}": parameter
        for place in places
        for name, parameter in model.get_submodule(place).named_parameters()
    }


def require_same_architecture(config: AdapterConfig, backbone: InstructBlipConfig, folder: Path) -> None:
    """Refuses an adapter of another backbone.

    Raises:
        CheckpointError: with every difference.
    """
    if not config.layers:  # a folder of PEFT's
        return
    expected = architecture(backbone)
    del expected["vocab_size"]
    differences = [
        f"{name} {config.backbone.get(name)} instead of {value}"
        for name, value in expected.items()
        if config.backbone.get(name) != value
    ]
    if differences:
        shipped = {name: read_adapter_config(find_adapter(name, offline=True)).backbone for name in ADAPTERS}
        fitting = [name for name, made_for in shipped.items() if made_for.items() >= expected.items()]
        raise CheckpointError(
            f"the adapter {folder.name if folder.name in ADAPTERS else folder} was made for another backbone: "
            f"{', '.join(differences)}",
            advice=f"Those that ship for this one are {' and '.join(fitting)}." if fitting else "",
        )
