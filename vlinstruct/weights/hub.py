"""The Hugging Face hub: downloads a model, finds what is damaged in the cache, uploads an adapter. No torch.

Safetensors and text files are downloaded, never pickles, never code. A broken-off download or a clean-up of the cache
leaves links without files and files of half their size, which the library does not notice when it works offline: they
are found here, so that the message names the file that must go.

Source: huggingface_hub's `snapshot_download`, whose errors are said in our own words.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlinstruct.errors import CheckpointError, NetworkError, ResourceError, VlinstructError, printable
from vlinstruct.files import read_json_object
from vlinstruct.weights.fingerprint import SETTINGS_FILES
from vlinstruct.weights.safetensors_files import INDEX_FILE, header

# What a model folder consists of: no .bin or .pth (pickles), no .py, and no other framework's copy of the weights.
_HUB_FILES = ("*.safetensors", *SETTINGS_FILES, *(f"qformer_tokenizer/{pattern}" for pattern in SETTINGS_FILES))
_SETTINGS = ("*.json", "*.jinja")
# Of a training's folder: optimizer, cached features and checkpoints stay on the machine.
_UPLOADED = ["README.md", "alignment_config.json", "alignment.safetensors", "lora/*", "curve.svg", "log.jsonl"]
# Settings with which transformers or diffusers run code of the repository's; the attention has values without any.
_CODE = ("auto_map", "custom_pipelines", "trust_remote_code", "_attn_implementation_internal")
_HARMLESS = (None, False, "", "eager", "sdpa")
# Settings that name a kernel, which transformers fetches and runs where the package `kernels` is installed, if their
# value is a repository's.
_MAYBE_KERNELS = ("_attn_implementation", "attn_implementation", "_experts_implementation", "experts_implementation")


def names_code(values: object) -> str | None:
    """Returns a setting, at any depth, with which a library would run a model's own code; None if there is none.

    >>> names_code({"text_config": {"auto_map": {"AutoModel": "evil.Model"}}}), names_code({"auto_map": None})
    ('auto_map', None)
    >>> names_code({"attn_implementation": "owner/kernel"}), names_code({"attn_implementation": "flash_attention_2"})
    ('attn_implementation', None)
    """
    if isinstance(values, dict):
        setting = next((name for name in _CODE if name in values and values[name] not in _HARMLESS), None)
        setting = setting or next((name for name in _MAYBE_KERNELS if "/" in str(values.get(name))), None)
        return setting or next(filter(None, map(names_code, values.values())), None)
    return next(filter(None, map(names_code, values)), None) if isinstance(values, list) else None


def refuse_code(folder: Path, name: str, config: Mapping[str, Any] | None = None) -> None:
    """Refuses a model whose settings would make a library run code of its folder, before any library sees it.

    Args:
        folder: of a model, a tokenizer or an adapter, here or in the hub's cache.
        name: what messages call it.
        config: the content of its config.json where that is known already.

    Raises:
        CheckpointError: it has such a setting, or a damaged settings file.
    """
    for path in sorted([*folder.glob("*config.json"), *folder.glob("*/*config.json")]):
        # An empty file is a damaged one, which is told where it is read.
        if path == folder / "config.json" and config is not None:
            setting = names_code(dict(config))
        else:
            setting = names_code(read_json_object(path)) if path.is_file() and path.stat().st_size else None
        if setting is not None:
            why = f"its {path.name} asks for code of its own ({setting}), which is never run"
            advice = "Give a model that transformers knows without code"
            raise CheckpointError.at("refused model", printable(name), why, advice)


def download(hub_id: str, *, offline: bool, check: Callable[[Path, dict[str, Any]], object]) -> Path:
    """Gets a repository; its settings first, so that what will be refused is not downloaded.

    Args:
        hub_id: `owner/name`.
        offline: use what is cached, open no connection.
        check: gets the folder of its settings and the content of its `config.json`; raises where they say that it
            cannot be used.

    Returns:
        Its folder in the hub's cache.

    Raises:
        CheckpointError: it asks for code of its own, is refused by `check`, or its cached files are damaged.
        NetworkError: it is not cached and cannot be downloaded.
        ResourceError: the hub's cache cannot be written.
    """

    def check_settings(folder: Path) -> None:
        refuse_code(folder, hub_id)
        config = folder / "config.json"
        if config.is_file() and config.stat().st_size:
            check(folder, read_json_object(config))

    settings_folder = _snapshot(hub_id, _SETTINGS, offline=offline)
    check_settings(settings_folder)
    # Not of the commit by name: to list its files huggingface_hub 2.4 would try for 23 s where there is no network.
    folder = _snapshot(hub_id, _HUB_FILES, offline=offline)
    if folder != settings_folder:  # the repository has moved on in between
        check_settings(folder)
    damaged = damages(folder)
    if damaged:
        first, more = damaged[0], f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        raise CheckpointError.at("damaged in the cache", first.path, first.why + more, first.advice)
    return folder


def _snapshot(hub_id: str, patterns: Sequence[str], *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        with _hushed(shows_progress=patterns is not _SETTINGS and sys.stderr is not None and sys.stderr.isatty()):
            folder = snapshot_download(hub_id, allow_patterns=list(patterns), local_files_only=offline)
    except Exception as error:  # the libraries below the hub's raise nearly anything
        raise _refusal(hub_id, error, offline=offline) from error
    return Path(folder)


@contextmanager
def _hushed(*, shows_progress: bool) -> Iterator[None]:
    """Keeps back what the hub's library logs of every try (addresses that may hold signatures), and bars in a pipe."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger, had_bars = logging.getLogger("huggingface_hub"), not are_progress_bars_disabled()
    level_before = logger.level
    logger.setLevel(logging.CRITICAL)
    if not shows_progress:
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level_before)
        if had_bars:
            enable_progress_bars()


def _refusal(hub_id: str, error: Exception, *, offline: bool) -> VlinstructError:
    """Says in our own words why the hub's library could not get a repository.

    Its messages run over many lines, with addresses and the advice to change a library's arguments.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    # The order matters: the first four are OSErrors as well, and a gated repository is one that is not found.
    if isinstance(error, GatedRepoError):
        return _network_error(hub_id, "access to it must be granted", "Accept its licence and run hf auth login")
    if isinstance(error, RepositoryNotFoundError):
        return _network_error(hub_id, "there is no such repository", "Check the name, or run hf auth login")
    if isinstance(error, LocalEntryNotFoundError):
        return _not_cached(hub_id, error, offline=offline)
    if isinstance(error, HfHubHTTPError):
        return _network_error(hub_id, _status(error.response.status_code), "Try again later")
    if isinstance(error, UnicodeDecodeError | IsADirectoryError):  # where the library reads which commit is the newest
        place = Path(constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}" / "refs"
        return CheckpointError.at("damaged in the cache", place, "main names no commit", "Delete it and run again")
    if isinstance(error, OSError) and error.errno is not None:
        advice = "Free some space, or set HF_HOME to a folder that can be written"
        why = os.strerror(error.errno)
        return ResourceError.at("cannot write the cache", constants.HF_HUB_CACHE, why, advice)
    why = f"the download broke off ({type(error).__name__})"
    return _network_error(hub_id, why, "Try again: complete files are kept")


def _not_cached(hub_id: str, error: Exception, *, offline: bool) -> VlinstructError:
    """Says why a file that is not cached could not be had: the library raises one error for all causes."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    cause, folder = error.__cause__, cached_folder(hub_id)
    damaged = damages(folder) if folder is not None else []
    if damaged:
        first = damaged[0]
        return CheckpointError.at("damaged in the cache", first.path, first.why, first.advice)
    if isinstance(cause, HfHubHTTPError):
        return _network_error(hub_id, _status(cause.response.status_code), "Try again later")
    extent = "only a part of it is in the cache" if folder is not None else "not in the cache"
    is_offline = offline or isinstance(cause, OfflineModeIsEnabled)
    why = f"{extent} and {'offline' if is_offline else 'the hub cannot be reached'}"
    return _network_error(hub_id, why, "Connect to the network and try again, or use --backbone mini")


def _status(code: int) -> str:
    meanings = {
        401: "the hub does not accept the token",
        403: "the hub refuses access",
        404: "a file is missing",
        429: "too many requests",
    }
    return f"{meanings.get(code, 'the hub has a problem' if code >= 500 else 'the hub refuses')} ({code})"


def _network_error(hub_id: str, why: str, advice: str) -> NetworkError:
    return NetworkError.at("cannot get model", printable(hub_id), why, advice)


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


def revision_of(folder: Path) -> str | None:
    """Returns the commit that a folder of the hub's cache is a snapshot of; None of any other folder.

    >>> revision_of(Path("hub/models--a--b/snapshots/0123456789abcdef0123456789abcdef01234567"))
    '0123456789abcdef0123456789abcdef01234567'
    """
    is_snapshot = folder.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", folder.name)
    return folder.name if is_snapshot else None


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
        first = "Delete it and" if os.path.exists(self.path) else "Connect to the network and"
        return f"{first} run again: only this file is downloaded"


def damages(folder: Path) -> list[Damage]:
    """Finds what is not whole in a folder of the hub's cache; reads no tensors."""
    index = folder / INDEX_FILE
    weight_map = read_json_object(index).get("weight_map") if index.is_file() and index.stat().st_size else None
    names = {name for name in weight_map.values() if isinstance(name, str)} if isinstance(weight_map, dict) else set()
    # `lexists`: a shard whose link leads nowhere is one of the files below.
    missing = [name for name in sorted(names) if not os.path.lexists(folder / name)]
    why = f"it is missing, though {INDEX_FILE} names it"
    return [
        *(Damage(path=folder / name, why=why) for name in missing),
        *(damage for path in sorted(folder.rglob("*")) for damage in _damage(path)),
    ]


def _damage(path: Path) -> Iterator[Damage]:
    if path.is_symlink() and not path.exists():
        yield Damage(path=path, why="it links to a file that no longer exists")
    elif path.is_file() and path.stat().st_size == 0:
        yield Damage(path=path.resolve(), why=f"{path.name} is empty")
    elif path.suffix == ".safetensors" and path.is_file():
        yield from _truncation(path)


def _truncation(path: Path) -> Iterator[Damage]:
    try:
        # A header says where the last tensor ends: that is the file's size, and no tensor need be read.
        tensor_entries = [values for name, values in header(path).items() if name != "__metadata__"]
        with path.open("rb") as file:
            expected = (
                8 + int.from_bytes(file.read(8), "little") + max(entry["data_offsets"][1] for entry in tensor_entries)
            )
    except (CheckpointError, KeyError, IndexError, TypeError, ValueError):
        yield Damage(path=path.resolve(), why=f"{path.name} is damaged")
        return
    if path.stat().st_size != expected:
        why = f"{path.name} has {path.stat().st_size} bytes instead of {expected}"
        yield Damage(path=path.resolve(), why=why)


def require_login() -> None:
    """Makes sure that an upload can succeed, before anything is trained.

    Raises:
        NetworkError: nobody is logged in, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().whoami()
    except Exception as error:
        raise NetworkError(
            "cannot push to the hub: it does not know who you are",
            advice="Log in with `hf auth login`, or train without --push-to-hub.",
            code="not_logged_in",
        ) from error


def push_adapter(folder: Path, repository: str) -> str:
    """Uploads a finished adapter into a repository, which is made, private, if it is missing.

    Args:
        folder: the adapter's; optimizer, features and checkpoints stay here.
        repository: `owner/name`.

    Returns:
        The address of the repository.

    Raises:
        NetworkError: it could not be uploaded; the folder is as it was.
    """
    from huggingface_hub import HfApi

    try:
        url = HfApi().create_repo(repository, private=True, exist_ok=True)
        HfApi().upload_folder(repo_id=repository, folder_path=folder, allow_patterns=_UPLOADED)
    except Exception as error:
        what = f"cannot push {folder} to {repository}: {type(error).__name__}"
        raise NetworkError(
            what, advice="The adapter in that folder is complete: `hf upload` can push it, too."
        ) from error
    return str(url)
