"""Starts a training from an exported model: all of it, or what another kind of language model leaves the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import vocabulary_tables
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.files import read_json_object


def start_from(folder: Path, model: InstructBlip) -> str:
    """Gives a model the weights of an exported one, where names and shapes agree.

    The embedding and the head of the vocabulary agree though they are named otherwise.

    Args:
        folder: config.json and model.safetensors.
        model: is changed in place.

    Returns:
        A line about what was taken, of each part.

    Raises:
        CheckpointError: there is no such folder, or it is no InstructBLIP.
    """
    config = InstructBlipConfig.from_dict(read_json_object(folder / "config.json"))
    renamed = dict(zip(vocabulary_tables(config), vocabulary_tables(model.config), strict=True))
    stored = {renamed.get(name, name): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    wanted = model.state_dict()
    taken = {name: tensor for name, tensor in stored.items() if name in wanted and wanted[name].shape == tensor.shape}
    model.load_state_dict({**wanted, **taken})
    return _account(taken, wanted)


def _account(taken: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    """Returns how many of each part's tensors were taken.

    >>> _account({"a.b": Tensor(), "c": Tensor()}, {"a.b": Tensor(), "a.d": Tensor(), "c": Tensor()})
    'a 1 of 2, c 1 of 1 tensors'
    """
    got, parts = (Counter(name.split(".")[0] for name in names) for names in (taken, wanted))
    return ", ".join(f"{part} {got[part]} of {count}" for part, count in parts.items()) + " tensors"
