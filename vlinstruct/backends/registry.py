"""Which model a name means: `find` turns a shipped name, a folder or a hub id into an `Identity`, once for a command.

What is known of a backbone stands in its one entry of BACKBONES. An entry is found by name, by hub id, or because a
path leads to a folder that ships. A stranger of the same shape gets none of its facts, since thresholds belong to
weights; its shape may suggest a training recipe (`of_same_shape`), and who follows that says so. No torch.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.server.address import addresses, is_url
from vlinstruct.errors import CheckpointError, InputError, UsageError
from vlinstruct.files import read_json_object
from vlinstruct.settings import Thresholds
from vlinstruct.values import Abilities, Identity
from vlinstruct.weights.fingerprint import fingerprint
from vlinstruct.weights.hub import cached_folder, download, refuse_code, revision_of

DEFAULT_BACKBONE = "mini"
# What ships in the package, by name: its folder in `vlinstruct/mini`.
_BUILT_IN: Mapping[str, str] = {"mini": "weights", "mini-llama": "llama_weights"}
# They ship, too, for each of these: EMA, and without CMAA to compare it with.
ADAPTERS = tuple(f"{name}-{kind}" for name in _BUILT_IN for kind in ("ema", "projection"))
_HUB_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)(?:/([\w.-]+/[\w.-]+))?")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
INSTRUCTBLIP_ABILITIES = Abilities(media=frozenset({"picture", "clip"}), num_frames=4, can_beam=True, can_stream=True)
"""What InstructBLIP can do; here and not with its backend, as it is asked for before torch is imported."""

SERVED_CONFIG: Mapping[str, Any] = {"model_type": "server"}
"""Stands for the `config.json` of a model that a server runs."""

_NAMES_ADVICE = "`vlinstruct backbones` lists the names"
UNKNOWN_BATCH_SIZE = 32  # Vicuna's, for backbones that the paper did not train


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A model that is known by name.

    Args:
        name: what `--backbone` takes, and what the paper's figures are filed under.
        hub_id: its Hugging Face repository; None for one that ships in the package.
        parameters: all of them, in billions, as loaded.
        download_gb: what the hub's safetensors take in their own dtype, in gigabytes; 0 for a shipped one.
        licence: as its model card says.
        batch_size: samples of an update in the recipe that it is trained with.
        recipe: in which fields that recipe differs from FinetuneConfig's defaults.
        thresholds: what the rules of choosing an instruction compare with; the defaults where nobody has measured it.
        reads_history: it was trained on conversations; else it is asked the last question alone.
    """

    name: str
    hub_id: str | None
    parameters: float
    download_gb: float
    licence: str
    batch_size: int = UNKNOWN_BATCH_SIZE
    recipe: Mapping[str, Any] = field(default_factory=dict)
    thresholds: Thresholds = field(default_factory=Thresholds)
    reads_history: bool = True

    @property
    def is_built_in(self) -> bool:
        """Whether its weights ship in the package."""
        return self.hub_id is None

    def config(self) -> dict[str, Any]:
        """Returns its transformers configuration, which ships in the package."""
        if self.is_built_in:
            text = (_built_in_folder(self.name) / "config.json").read_text(encoding="utf-8")
        else:
            rooms = (resources.files(f"vlinstruct.backends.{room}") for room in ("instructblip", "transformers"))
            files = (room / "configs" / f"{self.name}.json" for room in rooms)
            text = next(file for file in files if file.is_file()).read_text(encoding="utf-8")
        values: dict[str, Any] = json.loads(text)
        return values


# Ours, for the models that we have trained: they learn within seconds.
_MINIS_RECIPE: Mapping[str, Any] = {
    "learning_rate": 1e-4,
    "warmup_steps": 20,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 16,
    "save_steps": 50,
    "eval_steps": 25,
}
# On dev (tests/tools/README.md: 12,656 questions in four kinds of words), of gates 0.5 to 0.9 and none,
# and of 1, 1.5, 2, 3 nats and no limit: from 0.75 on more is gained only by asking again about much that is right, and
# from 2 nats on more than 2 of 100 planted instructions that hurt are taken; at 1.5 it is 2 of 500, at 1 none.
_MINIS_THRESHOLDS: Mapping[str, float] = {"max_cross_nll": 1.5, "sure_above": 0.75}
_VICUNAS_LICENCE = "Vicuna non-commercial"

BACKBONES: Mapping[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            name="mini",
            hub_id=None,
            parameters=0.006,
            download_gb=0,
            licence="Apache-2.0",
            batch_size=16,
            recipe=_MINIS_RECIPE,
            # On dev `safe` gains 0.45 points in people's words with 0 and 0.5, 0.38 with 0.8, 0.25 with 0.9, and loses
            # none of 2,742 answers: 0.8 stays, which refuses most rewritings that ask something else.
            thresholds=Thresholds(least_certainty=0.8, **_MINIS_THRESHOLDS),
            reads_history=False,  # what a talk before the question costs: tests/tools/README.md#follow_ups
        ),
        Backbone(
            name="mini-llama",
            hub_id=None,
            parameters=0.006,
            download_gb=0,
            licence="Apache-2.0",
            batch_size=16,
            recipe=_MINIS_RECIPE,
            # On dev `safe` changes paraphrases by 0.00 points with 0 and by 0.23 with 0.7, poor words by 0.34 and 0.20,
            # people's by 0.17 with both; with 0.8 poor words lose 0.10.
            thresholds=Thresholds(least_certainty=0.7, **_MINIS_THRESHOLDS),
            reads_history=False,
        ),
        Backbone(
            name="flant5-xl",
            hub_id="Salesforce/instructblip-flan-t5-xl",
            parameters=4.02,
            download_gb=16,
            licence="MIT",
            batch_size=128,
        ),
        Backbone(
            name="flant5-xxl",
            hub_id="Salesforce/instructblip-flan-t5-xxl",
            parameters=12.31,
            download_gb=49,
            licence="MIT",
            batch_size=256,
        ),
        Backbone(
            name="vicuna-7b",
            hub_id="Salesforce/instructblip-vicuna-7b",
            parameters=7.91,
            download_gb=32,
            licence=_VICUNAS_LICENCE,
        ),
        Backbone(
            name="vicuna-13b",
            hub_id="Salesforce/instructblip-vicuna-13b",
            parameters=14.19,
            download_gb=57,
            licence=_VICUNAS_LICENCE,
        ),
        # What transformers' own classes run. Their sources are listed in README.md beside this file.
        *(
            Backbone(name=name, hub_id=hub_id, parameters=parameters, download_gb=download_gb, licence=licence)
            for name, hub_id, parameters, download_gb, licence in (
                ("smolvlm2-256m", "HuggingFaceTB/SmolVLM2-256M-Video-Instruct", 0.26, 1.0, "Apache-2.0"),
                ("smolvlm2-500m", "HuggingFaceTB/SmolVLM2-500M-Video-Instruct", 0.51, 2.0, "Apache-2.0"),
                ("smolvlm2-2.2b", "HuggingFaceTB/SmolVLM2-2.2B-Instruct", 2.25, 9.0, "Apache-2.0"),
                ("qwen2.5-vl-3b", "Qwen/Qwen2.5-VL-3B-Instruct", 3.75, 7.5, "Qwen Research"),
                ("qwen2.5-vl-7b", "Qwen/Qwen2.5-VL-7B-Instruct", 8.29, 16.6, "Apache-2.0"),
                ("qwen3-vl-2b", "Qwen/Qwen3-VL-2B-Instruct", 2.13, 4.3, "Apache-2.0"),
                ("qwen3-vl-4b", "Qwen/Qwen3-VL-4B-Instruct", 4.44, 8.9, "Apache-2.0"),
                ("qwen3-vl-8b", "Qwen/Qwen3-VL-8B-Instruct", 8.77, 17.5, "Apache-2.0"),
                ("gemma3-4b", "google/gemma-3-4b-it", 4.30, 8.6, "Gemma"),
                ("llava-1.5-7b", "llava-hf/llava-1.5-7b-hf", 7.06, 14.1, "Llama 2"),
                ("llava-onevision-7b", "llava-hf/llava-onevision-qwen2-7b-ov-hf", 8.03, 16.1, "Apache-2.0"),
                ("internvl3-1b", "OpenGVLab/InternVL3-1B-hf", 0.94, 1.9, "Qwen"),
                ("internvl3-2b", "OpenGVLab/InternVL3-2B-hf", 2.09, 4.2, "Qwen"),
                ("internvl3-8b", "OpenGVLab/InternVL3-8B-hf", 7.94, 15.9, "Qwen"),
                ("paligemma2-3b", "google/paligemma2-3b-mix-224", 3.03, 6.1, "Gemma"),
            )
        ),
    )
}


def default_backbone() -> str:
    """Returns what `find(None)` finds: `$VLINSTRUCT_BACKBONE`, or `mini`."""
    return os.environ.get("VLINSTRUCT_BACKBONE") or DEFAULT_BACKBONE


def find(name: str | os.PathLike[str] | None = None, *, offline: bool = False) -> Identity:
    """Finds a backbone, downloading it when it must be.

    Args:
        name: a shipped name, a local folder or a hub id; a name wins over a folder of that name (`./mini`).
            `$VLINSTRUCT_BACKBONE` or mini if None.
        offline: use what is cached, open no connection.

    Returns:
        Its identity; the folder is there, and its `config.json` is read.

    Raises:
        CheckpointError: nothing is known by that name, there is no such folder, or it has no sound `config.json`.
        NetworkError: it is not cached and cannot be downloaded.
        ResourceError: the hub's cache cannot be written.
    """
    name = default_backbone() if name is None else os.fspath(name)
    if is_url(name):
        return _served(name, offline=offline)
    return identity_of(find_folder(name, offline=offline), name=name)


def _served(name: str, *, offline: bool) -> Identity:
    """Returns the identity of a server's address."""
    page = _HUB_PAGE.match(name)
    if page is not None:
        why = "that is a page of the hub, not a server"
        raise CheckpointError.at("cannot use backbone", name, why, f"Use {page[1] or 'the id on it'}")
    if offline:
        raise UsageError("--offline opens no connection, and a server needs one.")
    urls = ",".join(addresses(name))
    # Not the address: the same model may answer from another port tomorrow, and an output is resumed by its model.
    return Identity(
        name=urls, url=urls, config=SERVED_CONFIG, is_chat_model=True, read_fingerprint=partial(_models_served, urls)
    )


def _models_served(urls: str) -> str:
    from vlinstruct.backends.server.opening import models_served  # imports the HTTP library

    return models_served(urls)


def identity_of(folder: Path, name: str | None = None) -> Identity:
    """Returns the identity of a backbone's folder.

    Args:
        folder: config.json, safetensors and tokenizers.
        name: what it was called; the folder's path if None.

    Raises:
        CheckpointError: its `config.json` is missing or damaged.
    """
    name = str(folder) if name is None else name
    if not (folder / "config.json").exists() and any(folder.glob("*.gguf")):
        why = "it holds GGUF, llama.cpp's quantized format, and no config.json"
        raise CheckpointError.at("cannot use backbone", name, why, "Give the folder that the GGUF file was made of")
    config = read_json_object(folder / "config.json")
    refuse_code(folder, name, config)
    return Identity(
        name=name,
        folder=folder,
        revision=revision_of(folder),
        entry=known_backbone(name),
        config=config,
        is_chat_model=not is_instructblip(config) and _has_chat_template(folder),
        # Not read here: it reads 64 places of every shard, and most commands never ask for it.
        read_fingerprint=partial(fingerprint, folder),
    )


def instructblip_backbones() -> Sequence[Backbone]:
    """Returns those that the paper's engine runs: they can be trained, converted and given an adapter."""
    return [backbone for backbone in BACKBONES.values() if is_instructblip(backbone.config())]


def require_instructblip(name: str, config: Mapping[str, Any] | None = None, *, what: str) -> None:
    """Refuses a model of another family where only InstructBLIP's will do.

    Args:
        name: as it was typed.
        config: the content of its config.json; if None, that of a known name, and nothing is said of others, so that
            nothing is downloaded to be refused.
        what: what cannot be done with it.

    Raises:
        CheckpointError: it is another family's.
    """
    config = _config_here(name) if config is None else config
    if config is not None and not is_instructblip(config):
        why = "that is for models of the InstructBLIP family alone"
        raise CheckpointError.at(what, name, why, "Use flant5-xl, vicuna-7b, mini or a folder of that family")


def require_options(
    name: str,
    config: Mapping[str, Any] | None = None,
    *,
    adapter: object | None = None,
    image_size: int | None = None,
    compile: bool = False,
    think: bool = False,
) -> None:
    """Refuses options of `vlinstruct.load` that mean nothing to a family of models.

    Args:
        name: as it was typed.
        config: the content of its config.json; if None, that of a known name, and nothing is said of others, so that
            nothing is downloaded to be refused.
        adapter: as of `load`.
        image_size: as of `load`.
        compile: as of `load`.
        think: as of `load`.

    Raises:
        InputError: one is given and means nothing.
    """
    config = _config_here(name) if config is None else config
    if config is None:
        return
    if config == SERVED_CONFIG:
        given = {"--adapter": adapter, "--image-size": image_size, "--compile": compile or None}
        for option in (option for option, value in given.items() if value is not None):
            raise InputError.at(f"cannot use {option}", name, "the model is its server's", "Leave it out")
        return
    is_ours = is_instructblip(config)
    for option, is_given, why in (
        ("--think", is_ours and think, "it does not think before it answers"),
        ("--adapter", not is_ours and adapter is not None, "adapters are for models of the InstructBLIP family alone"),
        ("--image-size", not is_ours and image_size is not None, "it reads pictures at sizes of its own"),
    ):
        if is_given:
            raise InputError.at(f"cannot use {option}", name, why, "Leave it out")


def _config_here(name: str) -> dict[str, Any] | None:
    """Returns the configuration of a known name."""
    if is_url(name):
        return dict(SERVED_CONFIG)
    entry = known_backbone(name)
    return None if entry is None else entry.config()


def is_instructblip(config: Mapping[str, Any]) -> bool:
    """Says whether a `config.json` is for our own engine; one without a kind is, whose message names what it lacks."""
    return config.get("model_type", "instructblip") == "instructblip"


def _has_chat_template(folder: Path) -> bool:
    """Says whether a folder in transformers' format has a chat template, in any of the places where they stand."""
    if any((folder / name).exists() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    files = [folder / name for name in ("processor_config.json", "tokenizer_config.json")]
    return any(read_json_object(path).get("chat_template") is not None for path in files if path.exists())


def check_runnable(folder: Path, config: Mapping[str, Any], *, name: str) -> None:
    """Refuses a model that no backend here can run, from the settings in its folder alone.

    Raises:
        CheckpointError: nothing here runs it, or its settings are damaged.
        ResourceError: a package that it needs is not installed.
    """
    if is_instructblip(config):
        InstructBlipConfig.from_dict(config)
        return
    from vlinstruct.backends.transformers.support import require_supported  # imports transformers

    require_supported(folder, config, name=name)


def abilities_of(name: str) -> Abilities | None:
    """Returns what a backbone will be able to do; None where only the loaded backend knows. Nothing is downloaded.

    Args:
        name: a shipped name, a folder or a hub id.
    """
    if is_url(name):
        return Abilities()
    try:
        config = config_of(name)
    except CheckpointError:  # said in full when it is loaded
        return None
    return INSTRUCTBLIP_ABILITIES if is_instructblip(config) else None


def find_adapter(name: str, *, offline: bool = False) -> Path:
    """Finds an adapter's folder, downloading it when it must be.

    Args:
        name: one of ADAPTERS, a folder or a hub id.
        offline: use what is cached, open no connection.

    Raises:
        CheckpointError: nothing is known by that name, there is no such folder, or it asks for code of its own.
        NetworkError: it is not cached and cannot be downloaded.
        ResourceError: the hub's cache cannot be written.
    """
    folder = find_folder(name, offline=offline, what="adapter")
    refuse_code(folder, name)
    return folder


def known_backbone(name: str) -> Backbone | None:
    """Returns the entry of a name, of a hub id, or of a path that leads to a folder that ships; None of any other."""
    place = os.path.realpath(os.path.expanduser(name))
    for backbone in BACKBONES.values():
        if name in (backbone.name, backbone.hub_id):
            return backbone
        if backbone.is_built_in and place == os.path.realpath(_built_in_folder(backbone.name)):
            return backbone
    return None


def of_same_shape(config: Mapping[str, Any]) -> Backbone | None:
    """Returns the known InstructBLIP whose language model has a `config.json`'s kind, width and depth; or None."""
    shape = _shape(config) if is_instructblip(config) else None
    return next((backbone for backbone in instructblip_backbones() if _shape(backbone.config()) == shape), None)


def _shape(config: Mapping[str, Any]) -> list[Any]:
    text = config.get("text_config")
    values = text if isinstance(text, dict) else {}
    # The names of both kinds: those that a kind lacks are None on both sides.
    return [values.get(name) for name in ("model_type", "d_model", "hidden_size", "num_layers", "num_hidden_layers")]


def config_of(name: str) -> dict[str, Any]:
    """Returns the `config.json` of a known backbone, a folder or a cached repository; nothing is downloaded.

    Args:
        name: a known name, a folder, or a hub id.

    Raises:
        CheckpointError: it is none of them, its file is damaged, or it asks for code of its own.
    """
    if (backbone := known_backbone(name)) is not None:
        return backbone.config()
    folder = Path(name).expanduser()
    if not folder.is_dir() and _HUB_ID.fullmatch(name):
        folder = cached_folder(name) or folder
    path = folder / "config.json"
    if not path.is_file():
        advice = f"Give a folder with a config.json. {_NAMES_ADVICE}"
        raise CheckpointError.at("unknown backbone", name, "its shape is not known here", advice)
    config = read_json_object(path)
    refuse_code(folder, name, config)
    return config


def mini_folder() -> Path:
    """Returns the folder of mini's weights in the installed package."""
    return _built_in_folder("mini")


def _built_in_folder(name: str) -> Path:
    return Path(str(resources.files("vlinstruct"))) / "mini" / _BUILT_IN[name]


def find_folder(name: str, *, offline: bool = False, what: str = "backbone") -> Path:
    """Finds a folder by a shipped name, its path or a hub id, downloading it when it must be; reads nothing of it.

    Args:
        name: see `find`.
        offline: use what is cached, open no connection.
        what: what to call it in messages.

    Raises:
        CheckpointError: nothing is known by that name, or there is no such folder.
        NetworkError: it is not cached and cannot be downloaded.
        ResourceError: the hub's cache cannot be written.
    """
    place = resolve(name, what=what)
    if isinstance(place, Path):
        return place
    return download(place, offline=offline, check=partial(check_runnable, name=name))


def resolve(name: str, *, what: str = "backbone") -> Path | str:
    """Tells a folder here, as a path, from a repository of the hub, as its id; opens no connection.

    Raises:
        CheckpointError: nothing is known by that name, there is no such folder, or what should ship does not.
    """
    if is_url(name):
        why = "it is a server, whose files are not here"
        raise CheckpointError.at(f"cannot use {what}", name, why, "Use a name, a folder or a hub id")
    backbone = BACKBONES.get(name)
    if backbone is not None and backbone.hub_id is not None:
        return backbone.hub_id
    if backbone is not None:
        folder = _built_in_folder(name)
        if not (folder / "model.safetensors").is_file():
            why = "its weights are not in this installation"
            raise CheckpointError.at("cannot use backbone", name, why, f"Use {DEFAULT_BACKBONE}, or a folder")
        return folder
    if what == "adapter" and name in ADAPTERS:
        return mini_folder().parent / "adapters" / name
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    # `models/flan` beside a folder `models` is a mistyped path, not a repository.
    if _HUB_ID.fullmatch(name) and not folder.parent.is_dir():
        return name
    names = ADAPTERS if what == "adapter" else tuple(BACKBONES)
    near = get_close_matches(name, names, n=1)
    guess = f"Did you mean {near[0]}? " if near else ""
    advice = f"Names are {', '.join(names)}" if what == "adapter" else _NAMES_ADVICE
    raise CheckpointError.at(f"unknown {what}", name, "not a name, folder or hub id", guess + advice)


def is_cached(backbone: Backbone) -> bool:
    """Says whether the backbone can be loaded without a download."""
    if backbone.hub_id is None:
        return (_built_in_folder(backbone.name) / "model.safetensors").is_file()
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(backbone.hub_id, name), str) for name in files)
