"""Where a backbone comes from: a shipped name, a local folder or a hub id becomes a folder here. No torch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.errors import CheckpointError
from vlinstruct.files import read_json_object
from vlinstruct.weights.download import download

DEFAULT_BACKBONE = "mini"
# What ships in the package, by name: its folder in `vlinstruct/mini`.
_BUILT_IN: Mapping[str, str] = {"mini": "weights", "mini-llama": "llama_weights"}
# They ship, too, for each of these: EMA, and without CMAA to compare it with.
ADAPTERS = tuple(f"{name}-{kind}" for name in _BUILT_IN for kind in ("ema", "projection"))
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A model that is known by name.

    Args:
        name: what `--backbone` takes.
        hub_id: its Hugging Face repository; None for one that ships in the package.
        parameters: all of them, in billions.
        download_gb: what the hub's files take, in gigabytes; 0 for a shipped one.
        licence: as its model card says.
        least_certainty: see `OptimizationSettings`; 0 where nobody has measured it.
    """

    name: str
    hub_id: str | None
    parameters: float
    download_gb: float
    licence: str
    least_certainty: float = 0.0

    @property
    def is_built_in(self) -> bool:
        """Whether its weights ship in the package."""
        return self.hub_id is None

    def config(self) -> dict[str, Any]:
        """Returns its transformers configuration, which ships in the package."""
        if self.is_built_in:
            text = (_built_in_folder(self.name) / "config.json").read_text(encoding="utf-8")
        else:
            file = resources.files("vlinstruct.backends.instructblip") / "configs" / f"{self.name}.json"
            text = file.read_text(encoding="utf-8")
        values: dict[str, Any] = json.loads(text)
        return values


# On dev, 200 items of each of mini's tasks, poor words: right answers 90.00 % without, 90.05, 90.15, 90.00 and 89.90 %
# with 0.5, 0.8, 0.9 and 0.95; 88.20 % if nothing is optimized.
_LEAST_CERTAINTY = {"mini": 0.8}

# Parameters as loaded; sizes are those of the hub's float32 files.
BACKBONES: Mapping[str, Backbone] = {
    name: Backbone(
        name=name,
        hub_id=hub_id,
        parameters=parameters,
        download_gb=download_gb,
        licence=licence,
        least_certainty=_LEAST_CERTAINTY.get(name, 0.0),
    )
    for name, hub_id, parameters, download_gb, licence in (
        ("mini", None, 0.005, 0, "Apache-2.0"),
        ("mini-llama", None, 0.006, 0, "Apache-2.0"),
        ("flant5-xl", "Salesforce/instructblip-flan-t5-xl", 4.02, 16, "MIT"),
        ("flant5-xxl", "Salesforce/instructblip-flan-t5-xxl", 12.31, 49, "MIT"),
        ("vicuna-7b", "Salesforce/instructblip-vicuna-7b", 7.91, 32, "Vicuna's: non-commercial"),
        ("vicuna-13b", "Salesforce/instructblip-vicuna-13b", 14.19, 57, "Vicuna's: non-commercial"),
    )
}


def known_as(backbone: str, *, offline: bool = False) -> str:
    """Returns the name of the known backbone whose architecture one has; its own where it has none's.

    Args:
        backbone: what `locate` takes.
        offline: use what is cached, open no connection.
    """
    if backbone in BACKBONES:
        return backbone
    path = locate(backbone, offline=offline) / "config.json"
    shape = _shape(read_json_object(path)) if path.exists() else None
    return next((name for name, known in BACKBONES.items() if _shape(known.config()) == shape), backbone)


def _shape(config: Mapping[str, Any]) -> list[Any]:
    """Returns what tells the known backbones apart."""
    text = config.get("text_config")
    values = text if isinstance(text, dict) else {}
    return [values.get(name) for name in ("model_type", "d_model", "hidden_size", "num_layers", "num_hidden_layers")]


def default_backbone() -> str:
    """Returns `$VLINSTRUCT_BACKBONE`, or `mini`."""
    return os.environ.get("VLINSTRUCT_BACKBONE") or DEFAULT_BACKBONE


def mini_folder() -> Path:
    """Returns the folder of mini's weights in the installed package."""
    return _built_in_folder("mini")


def _built_in_folder(name: str) -> Path:
    return Path(str(resources.files("vlinstruct"))) / "mini" / _BUILT_IN[name]


def _built_in(name: str) -> Path:
    """Returns the folder of a model that ships.

    Raises:
        CheckpointError: its weights are not in this installation.
    """
    folder = _built_in_folder(name)
    if not (folder / "model.safetensors").is_file():
        why = "its weights are not in this installation"
        raise CheckpointError.at("cannot use backbone", name, why, f"Use {DEFAULT_BACKBONE}, or a folder")
    return folder


def locate(backbone: str, *, offline: bool = False, what: str = "backbone") -> Path:
    """Finds the folder of a backbone or an adapter, downloading it when it must be.

    Args:
        backbone: a shipped name, a local folder or a hub id; a name wins over a folder of that name (`./mini`). Of an
            adapter one of ADAPTERS, a folder or a hub id.
        offline: use what is cached, open no connection.
        what: what to call it in messages.

    Returns:
        An existing folder.

    Raises:
        CheckpointError: nothing is known by that name, or there is no such folder.
        NetworkError: it is not cached and cannot be downloaded.
        ResourceError: the hub's cache cannot be written.
    """
    found = resolve(backbone, what=what)
    if isinstance(found, Path):
        return found
    return download(found, offline=offline, check_config=InstructBlipConfig.from_dict)


def resolve(backbone: str, *, what: str = "backbone") -> Path | str:
    """Tells a folder here, as a path, from a repository of the hub, as its id; opens no connection.

    Raises:
        CheckpointError: nothing is known by that name, there is no such folder, or what should ship does not.
    """
    known = BACKBONES.get(backbone)
    if known is not None:
        return known.hub_id or _built_in(backbone)
    if what == "adapter" and backbone in ADAPTERS:
        return mini_folder().parent / "adapters" / backbone
    folder = Path(backbone).expanduser()
    if backbone and folder.is_dir():
        return folder
    if _HUB_ID.fullmatch(backbone) and not folder.parent.is_dir():
        return backbone
    advice = _advice(backbone, ADAPTERS if what == "adapter" else tuple(BACKBONES))
    raise CheckpointError.at(f"unknown {what}", backbone, "no name, folder or hub id", advice)


def _advice(asked: str, names: Sequence[str]) -> str:
    near = get_close_matches(asked, names, n=1)
    guess = f"Did you mean {near[0]}? " if near else ""
    return f"{guess}Names are {', '.join(names)}"


def is_cached(backbone: Backbone) -> bool:
    """Says whether the backbone can be loaded without a download."""
    if backbone.hub_id is None:
        return (_built_in_folder(backbone.name) / "model.safetensors").is_file()
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(backbone.hub_id, name), str) for name in files)
