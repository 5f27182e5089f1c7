"""An InstructBLIP folder becomes another one: of other files and types, or with an adapter merged into it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from vlinstruct.backends.instructblip.adapter import (
    LORA_FOLDER,
    layer_parameters,
    read_adapter,
    require_same_architecture,
)
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import empty_model, require_same_tensors, vocabulary_tables
from vlinstruct.backends.instructblip.lora import read_lora
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.conversion.language_model_folder import PREFIX
from vlinstruct.conversion.model_folder import Writing, Written, copy_others, stored_weights, write_model_folder
from vlinstruct.conversion.weights import Weight, plus_low_rank, require_floating, stored
from vlinstruct.errors import CheckpointError
from vlinstruct.files import read_json_object


def convert_folder(source: Path, writing: Writing) -> Written:
    """Writes a model's folder anew, in files of another size or type.

    Args:
        source: an InstructBLIP folder.
        writing: where to, and how.

    Raises:
        CheckpointError: something is missing, damaged or does not fit; what, is named.
        InputError: something stands at the target.
        ResourceError: the disk is full or not writable.
    """
    writing.require_target()
    values = read_json_object(source / "config.json")
    config = InstructBlipConfig.from_dict(values)
    return write_model_folder(
        stored_weights(source, writing.notify),
        values,
        writing,
        source=source.name,
        write_others=partial(copy_others, source, notify=writing.notify),
        optional=vocabulary_tables(config)[1:],
    )


def merge_adapter(adapter: Path, backbone: Path, writing: Writing) -> Written:
    """Writes a model's folder with an adapter's layers in the place of its own, and LoRA added to its weights.

    Args:
        adapter: its folder.
        backbone: the InstructBLIP folder that it was made for.
        writing: where to, and how.

    Raises:
        CheckpointError: the adapter was made for another backbone or learned CMAA, or something is damaged.
        InputError: something stands at the target.
        ResourceError: the disk is full or not writable.
    """
    writing.require_target()
    values = read_json_object(backbone / "config.json")
    config, (facts, trained) = InstructBlipConfig.from_dict(values), read_adapter(adapter)
    require_same_architecture(facts, config, adapter)
    if "cmaa" in facts.layers:
        why = "it learned CMAA, which an InstructBLIP folder has no place for"
        raise CheckpointError.at("cannot merge adapter", adapter, why, "Use it with --adapter")
    model = empty_model(config)
    require_same_tensors(trained, layer_parameters(model, facts.layers), str(adapter))
    weights = stored_weights(backbone, writing.notify) | {name: stored(tensor) for name, tensor in trained.items()}
    require_floating(weights, f"{backbone.name}, {adapter.name}")  # a sum with LoRA would hide what they were
    if facts.lora:
        _add_lora(weights, adapter / LORA_FOLDER, model, writing)
    values = {name: value for name, value in values.items() if name != "use_ema"}
    if facts.use_ema:
        values["use_ema"] = True
        writing.notify("the adapter uses EMA: vlinstruct does so with this folder, transformers will leave it out")
    return write_model_folder(
        weights,
        values,
        writing,
        source=f"{backbone.name}, {adapter.name}",
        write_others=partial(copy_others, backbone, notify=writing.notify),
        optional=vocabulary_tables(config)[1:],
    )


def _add_lora(weights: dict[str, Weight], folder: Path, model: InstructBlip, writing: Writing) -> None:
    settings, matrices = read_lora(folder, model.language_model)
    ends = (".lora_A.weight", ".lora_B.weight")
    narrow = set()
    for key in [name for name in matrices if name.endswith(ends[0])]:
        layer = key.removesuffix(ends[0])
        name = f"{PREFIX}{layer.removeprefix('base_model.model.')}.weight"
        weight = weights.get(name)
        if weight is None:  # which is told as missing
            continue
        dtype = writing.dtype or weight.dtype
        narrow |= {dtype} if dtype.itemsize < torch.float32.itemsize else set()
        scale = settings.alpha / settings.r
        weights[name] = plus_low_rank(weight, matrices[key], matrices[layer + ends[1]], scale, dtype=dtype)
    for dtype in narrow:
        writing.notify(f"LoRA's small changes are rounded to {str(dtype)[6:]}: --dtype float32 keeps them")
