"""Adapters become models, and fine-tunings become adapters.

A merged model has an adapter's layers in the place of its own, and LoRA added to its weights. LAVIS's file of a
fine-tuning, e.g. the paper's authors', gives the layers that an adapter can hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vlinstruct.backends.instructblip.adapter import (
    LAYERS,
    TENSORS_FILE,
    layer_parameters,
    lora_folder,
    read_adapter,
    require_same_architecture,
    save_adapter,
)
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import empty_model, optional_tensors, require_same_tensors
from vlinstruct.backends.instructblip.lora import read_lora
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.conversion.atomic_folder import folder_written_atomically
from vlinstruct.conversion.lavis import gathered
from vlinstruct.conversion.model_folder import (
    LANGUAGE_MODEL,
    Writing,
    Written,
    copy_others,
    stored_weights,
    write_model_folder,
)
from vlinstruct.conversion.weights import (
    Weight,
    is_finite,
    listed,
    num_bytes,
    plus_low_rank,
    require_floating,
    stored,
    whole,
)
from vlinstruct.errors import CheckpointError
from vlinstruct.files import read_json_object
from vlinstruct.weights.hub import refuse_code

# Also ln_vision: the authors' code leaves it unfrozen, though the paper trains the projection alone.
_TRAINED = ("projection", "ln_vision")


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
    for folder in (adapter, backbone):
        refuse_code(folder, str(folder))
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
        _add_lora(weights, lora_folder(adapter), model, writing)
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
        optional=optional_tensors(config),
    )


def _add_lora(weights: dict[str, Weight], folder: Path, model: InstructBlip, writing: Writing) -> None:
    settings, matrices = read_lora(folder, model.language_model)
    ends = (".lora_A.weight", ".lora_B.weight")
    narrow = set()
    for key in [name for name in matrices if name.endswith(ends[0])]:
        layer = key.removesuffix(ends[0])
        name = f"{LANGUAGE_MODEL}{layer.removeprefix('base_model.model.')}.weight"
        weight = weights.get(name)
        if weight is None:  # write_model_folder names it as missing
            continue
        dtype = writing.dtype or weight.dtype
        narrow |= {dtype} if dtype.itemsize < torch.float32.itemsize else set()
        scale = settings.alpha / settings.r
        weights[name] = plus_low_rank(weight, matrices[key], matrices[layer + ends[1]], scale, dtype=dtype)
    for dtype in narrow:
        writing.notify(f"LoRA's small changes are rounded to {str(dtype)[6:]}: --dtype float32 keeps them")


def extract_adapter(files: Sequence[Path], config: Mapping[str, Any], writing: Writing, *, use_ema: bool) -> Written:
    """Makes an adapter folder of the trained alignment layers.

    Args:
        files: .pth files; of a tensor that several have, the last file's is taken.
        config: the content of the backbone's `config.json`.
        writing: where to; numbers stay as they are stored.
        use_ema: whether CMAA was on in the training, which no file tells.

    Raises:
        CheckpointError: there is no projection, a tensor does not fit the backbone, or a file is damaged or unsafe.
        InputError: something stands at the target.
        ResourceError: the disk is full or not writable.
    """
    writing.require_target()
    architecture, source = InstructBlipConfig.from_dict(config), ", ".join(path.name for path in files)
    weights = gathered(files, architecture, writing.notify)
    layers = [layer for layer in _TRAINED if _of(weights, [layer])]
    if "projection" not in layers:
        why, advice = "no projection in it (t5_proj or llm_proj)", "Give the checkpoint of a fine-tuning"
        raise CheckpointError.at("cannot make an adapter", source, why, advice)
    trained, model = _of(weights, layers), empty_model(architecture)
    require_floating(trained, source)
    require_same_tensors(trained, layer_parameters(model, layers), source)
    writing.judge_nonfinite([name for name, weight in trained.items() if not is_finite(weight)], source)
    _say_left_out([name for name in weights if name not in trained], writing)
    model.load_state_dict({name: whole(weight) for name, weight in trained.items()}, strict=False, assign=True)
    model.use_ema = use_ema
    with folder_written_atomically(writing.target, force=writing.force) as folder:
        save_adapter(folder, model, layers=layers, training={"converted_from": source})
    size_bytes = sum(map(num_bytes, trained.values()))
    return Written(folder=writing.target, num_tensors=len(trained), size_bytes=size_bytes, files=(TENSORS_FILE,))


def _of(weights: Mapping[str, Weight], layers: Sequence[str]) -> dict[str, Weight]:
    places = tuple(f"{LAYERS[layer]}." for layer in layers)
    return {name: weight for name, weight in weights.items() if name.startswith(places)}


def _say_left_out(names: Sequence[str], writing: Writing) -> None:
    if names:
        writing.notify(
            f"{len(names)} tensors are left out, an adapter cannot hold them ({listed(names)}). If they were trained "
            "too, make a model of the file."
        )
