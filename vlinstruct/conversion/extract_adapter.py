"""LAVIS's file of a fine-tuning, e.g. the paper's authors', becomes an adapter: the layers that an adapter can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlinstruct.backends.instructblip.adapter import LAYERS, TENSORS_FILE, layer_parameters, save_adapter
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import empty_model, require_same_tensors
from vlinstruct.conversion.atomic_folder import folder_written_atomically
from vlinstruct.conversion.import_lavis import gathered
from vlinstruct.conversion.model_folder import Writing, Written
from vlinstruct.conversion.weights import (
    Weight,
    is_finite,
    listed,
    num_bytes,
    require_floating,
    whole,
)
from vlinstruct.errors import CheckpointError

_LAYERS = ("projection", "ln_vision")


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
    layers = [layer for layer in _LAYERS if _of(weights, [layer])]
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
