"""Where a backbone comes from: a shipped name, a local folder or a hub id becomes a folder here. No torch."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from vlinstruct.checkpoints.json_files import read_json_object
from vlinstruct.checkpoints.safetensors_files import INDEX_FILE, header
from vlinstruct.data.text import error_line, printable
from vlinstruct.errors import CheckpointError, NetworkError, ResourceError, VlinstructError
from vlinstruct.model.configuration import InstructBlipConfig

DEFAULT_BACKBONE = "mini"
ADAPTERS = ("mini-ema", "mini-projection")  # mini's that ship in the package: EMA, and without CMAA to compare it with
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Weights as safetensors and text files; never pickles, never code.
_HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "qformer_tokenizer/*")
_SETTINGS = ("*.json",)
_CODE = ("auto_map", "custom_pipelines", "trust_remote_code", "_attn_implementation_internal")
_HARMLESS = (None, False, "", "eager", "sdpa")


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A model that is known by name.

    Args:
        name: what `--backbone` takes.
        hub_id: its Hugging Face repository; None for the one that ships in the package.
        parameters: all of them, in billions.
        download_gb: what the hub's files take, in gigabytes; 0 for the shipped one.
        licence: as its model card says.
    """

    name: str
    hub_id: str | None
    parameters: float
    download_gb: float
    licence: str

    def config(self) -> dict[str, Any]:
        """Returns its transformers configuration, which ships in the package."""
        if self.hub_id is None:
            text = (mini_folder() / "config.json").read_text(encoding="utf-8")
        else:
            file = resources.files("vlinstruct.checkpoints") / "configs" / f"{self.name}.json"
            text = file.read_text(encoding="utf-8")
        values: dict[str, Any] = json.loads(text)
        return values


# Parameters as loaded; sizes are those of the hub's float32 files.
BACKBONES: Mapping[str, Backbone] = {
    name: Backbone(name=name, hub_id=hub_id, parameters=parameters, download_gb=download_gb, licence=licence)
    for name, hub_id, parameters, download_gb, licence in (
        ("mini", None, 0.005, 0, "Apache-2.0"),
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
    return Path(str(resources.files("vlinstruct"))) / "mini" / "weights"


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
    return found if isinstance(found, Path) else _download(found, offline=offline)


def resolve(backbone: str, *, what: str = "backbone") -> Path | str:
    """Tells a folder here, as a path, from a repository of the hub, as its id; opens no connection.

    Raises:
        CheckpointError: nothing is known by that name, or there is no such folder.
    """
    known = BACKBONES.get(backbone)
    if known is not None:
        return known.hub_id or mini_folder()
    if what == "adapter" and backbone in ADAPTERS:
        return mini_folder().parent / "adapters" / backbone
    folder = Path(backbone).expanduser()
    if backbone and folder.is_dir():
        return folder
    if _HUB_ID.fullmatch(backbone) and not folder.parent.is_dir():
        return backbone
    advice = _advice(backbone, ADAPTERS if what == "adapter" else tuple(BACKBONES))
    raise CheckpointError(error_line(f"unknown {what}", backbone, "no name, folder or hub id", advice))


def _advice(asked: str, names: Sequence[str]) -> str:
    near = get_close_matches(asked, names, n=1)
    guess = f"Did you mean {near[0]}? " if near else ""
    return f"{guess}Names are {', '.join(names)}"


def is_cached(backbone: Backbone) -> bool:
    """Says whether the backbone can be loaded without a download."""
    if backbone.hub_id is None:
        return (mini_folder() / "model.safetensors").is_file()
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(backbone.hub_id, name), str) for name in files)


def cached_folder(hub_id: str) -> Path | None:
    """Returns a repository's newest snapshot in the hub's cache, whole or not; None if there is none."""
    from huggingface_hub import constants

    repository = Path(constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}"
    try:
        commit = (repository / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    folder = repository / "snapshots" / Path(commit).name
    return folder if commit and folder.is_dir() else None


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A file that a broken-off download, a full disk or a clean-up left.

    Args:
        path: the file itself; of the hub's cache the blob, which must go for the hub to load it again.
        why: what is wrong with it.
    """

    path: Path
    why: str

    @property
    def advice(self) -> str:
        """What to do."""
        first = "Delete it and" if self.path.exists() else "Connect to the network and"
        return f"{first} run again: it alone is downloaded"


def damages(folder: Path) -> list[Damage]:
    """Finds what is not whole in a folder of the hub's cache; reads no tensors."""
    return [*_missing_shards(folder), *(found for path in sorted(folder.rglob("*")) for found in _damage(path))]


def _damage(path: Path) -> Iterator[Damage]:
    if path.is_symlink() and not path.exists():
        yield Damage(path=path, why="it is a link to a file that is gone")
    elif path.is_file() and path.stat().st_size == 0:
        yield Damage(path=path.resolve(), why=f"{path.name} is empty")
    elif path.suffix == ".safetensors" and path.is_file():
        yield from _truncation(path)


def _truncation(path: Path) -> Iterator[Damage]:
    try:
        tensors = [one for name, one in header(path).items() if name != "__metadata__"]
        with path.open("rb") as file:
            expected = 8 + int.from_bytes(file.read(8), "little") + max(one["data_offsets"][1] for one in tensors)
    except (CheckpointError, KeyError, IndexError, TypeError, ValueError):
        yield Damage(path=path.resolve(), why=f"{path.name} is damaged")
        return
    if path.stat().st_size != expected:
        why = f"{path.name} has {path.stat().st_size} bytes in place of {expected}"
        yield Damage(path=path.resolve(), why=why)


def _missing_shards(folder: Path) -> Iterator[Damage]:
    index = folder / INDEX_FILE
    weight_map = read_json_object(index).get("weight_map") if index.is_file() and index.stat().st_size else None
    names = {name for name in weight_map.values() if isinstance(name, str)} if isinstance(weight_map, dict) else set()
    for name in sorted(names):
        if not os.path.lexists(folder / name):
            yield Damage(path=folder / name, why=f"it is missing, though {INDEX_FILE} names it")


def names_code(values: object) -> str | None:
    """Returns a setting, at any depth, with which a library would run a model's own code; None if there is none.

    >>> names_code({"text_config": {"auto_map": {"AutoModel": "evil.Model"}}}), names_code({"auto_map": None})
    ('auto_map', None)
    """
    if isinstance(values, dict):
        own = next((name for name in _CODE if name in values and values[name] not in _HARMLESS), None)
        return own or next(filter(None, map(names_code, values.values())), None)
    return next(filter(None, map(names_code, values)), None) if isinstance(values, list) else None


def _download(hub_id: str, *, offline: bool) -> Path:
    """Gets the settings first, so that what will be refused is not downloaded."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
    folder = _snapshot(hub_id, _SETTINGS, offline=offline)
    _refuse_code(hub_id, folder)
    config = folder / "config.json"
    if config.is_file() and config.stat().st_size:
        InstructBlipConfig.from_dict(read_json_object(config))
    folder = _snapshot(hub_id, _HUB_FILES, offline=offline, commit=folder.name)
    _refuse_damaged(hub_id, folder)
    return folder


def _snapshot(hub_id: str, patterns: Sequence[str], *, offline: bool, commit: str | None = None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        with _hushed(shows_progress=patterns is not _SETTINGS and sys.stderr is not None and sys.stderr.isatty()):
            folder = snapshot_download(hub_id, revision=commit, allow_patterns=list(patterns), local_files_only=offline)
    except Exception as error:  # the libraries below the hub's raise nearly anything
        raise _refusal(hub_id, error, offline=offline) from error
    return Path(folder)


@contextmanager
def _hushed(*, shows_progress: bool) -> Iterator[None]:
    """Keeps back what the hub's library logs of every try (addresses that may hold signatures), and bars in a pipe."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger, had_bars = logging.getLogger("huggingface_hub"), not are_progress_bars_disabled()
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    if not shows_progress:
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(before)
        if had_bars:
            enable_progress_bars()


def _refuse_code(hub_id: str, folder: Path) -> None:
    for path in sorted(folder.rglob("*config.json")):
        setting = names_code(read_json_object(path)) if path.is_file() and path.stat().st_size else None
        if setting is not None:
            why = f"its {path.name} asks for code of its own ({setting}), which is never run"
            raise _checkpoint_error(hub_id, why, "Give a model of the InstructBLIP family without code")


def _refuse_damaged(hub_id: str, folder: Path) -> None:
    found = damages(folder)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise CheckpointError(error_line("damaged in the cache", found[0].path, found[0].why + more, found[0].advice))


def _refusal(hub_id: str, error: Exception, *, offline: bool) -> VlinstructError:
    """Says in our own words why the hub's library could not get a repository."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return _network_error(hub_id, "access to it must be granted", "Accept its licence and run hf auth login")
    if isinstance(error, RepositoryNotFoundError):
        return _network_error(hub_id, "there is no such repository", "Check the name, or run hf auth login")
    if isinstance(error, LocalEntryNotFoundError):
        return _not_cached(hub_id, error, offline=offline)
    if isinstance(error, HfHubHTTPError):
        return _network_error(hub_id, _status(error.response.status_code), "Try again later")
    if isinstance(error, OSError) and error.errno is not None:
        return _unwritable(error)
    why = f"the download broke off ({type(error).__name__})"
    return _network_error(hub_id, why, "Try again: files that are whole are kept")


def _not_cached(hub_id: str, error: Exception, *, offline: bool) -> VlinstructError:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    cause, folder = error.__cause__, cached_folder(hub_id)
    found = damages(folder) if folder is not None else []
    if found:
        return CheckpointError(error_line("damaged in the cache", found[0].path, found[0].why, found[0].advice))
    if isinstance(cause, HfHubHTTPError):
        return _network_error(hub_id, _status(cause.response.status_code), "Try again later")
    here = "only a part of it is in the cache" if folder is not None else "not in the cache"
    is_offline = offline or isinstance(cause, OfflineModeIsEnabled)
    why = f"{here} and {'offline' if is_offline else 'the hub cannot be reached'}"
    return _network_error(hub_id, why, "Connect to the network and try again, or use --backbone mini")


def _status(code: int) -> str:
    known = {401: "the hub does not accept the token", 403: "the hub refuses access", 404: "a file is not there"}
    other = "too many requests" if code == 429 else "the hub has a problem" if code >= 500 else "the hub refuses"
    return f"{known.get(code, other)} ({code})"


def _unwritable(error: OSError) -> ResourceError:
    from huggingface_hub import constants

    advice = "Free some space, or set HF_HOME to a folder that can be written"
    return ResourceError(
        error_line("cannot write the cache", constants.HF_HUB_CACHE, os.strerror(error.errno or 0), advice)
    )


def _network_error(hub_id: str, why: str, advice: str) -> NetworkError:
    return NetworkError(error_line("cannot get model", printable(hub_id), why, advice))


def _checkpoint_error(hub_id: str, why: str, advice: str) -> CheckpointError:
    return CheckpointError(error_line("refused model", printable(hub_id), why, advice))
