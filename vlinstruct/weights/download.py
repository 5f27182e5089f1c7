"""Gets a model from the Hugging Face hub: safetensors and text files, never pickles, never code. No torch.

Also says what lies in the hub's cache, and what of it is not whole after a broken-off download or a clean-up.

Source: huggingface_hub's `snapshot_download`, whose errors are said in our own words.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlinstruct.errors import CheckpointError, NetworkError, ResourceError, VlinstructError, printable
from vlinstruct.files import read_json_object
from vlinstruct.weights.safetensors_files import INDEX_FILE, header

_HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "qformer_tokenizer/*")
_SETTINGS = ("*.json",)
_CODE = ("auto_map", "custom_pipelines", "trust_remote_code", "_attn_implementation_internal")
_HARMLESS = (None, False, "", "eager", "sdpa")


def names_code(values: object) -> str | None:
    """Returns a setting, at any depth, with which a library would run a model's own code; None if there is none.

    >>> names_code({"text_config": {"auto_map": {"AutoModel": "evil.Model"}}}), names_code({"auto_map": None})
    ('auto_map', None)
    """
    if isinstance(values, dict):
        own = next((name for name in _CODE if name in values and values[name] not in _HARMLESS), None)
        return own or next(filter(None, map(names_code, values.values())), None)
    return next(filter(None, map(names_code, values)), None) if isinstance(values, list) else None


def download(hub_id: str, *, offline: bool, check_config: Callable[[dict[str, Any]], object]) -> Path:
    """Gets a repository; its settings first, so that what will be refused is not downloaded.

    Args:
        hub_id: `owner/name`.
        offline: use what is cached, open no connection.
        check_config: raises where the content of its `config.json` says that it cannot be used.

    Returns:
        Its folder in the hub's cache.

    Raises:
        CheckpointError: it asks for code of its own, is refused by `check_config`, or its cached files are damaged.
        NetworkError: it is not cached and cannot be downloaded.
        ResourceError: the hub's cache cannot be written.
    """
    folder = _snapshot(hub_id, _SETTINGS, offline=offline)
    _refuse_code(hub_id, folder)
    config = folder / "config.json"
    if config.is_file() and config.stat().st_size:
        check_config(read_json_object(config))
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
    damaged = damages(folder)
    if damaged:
        first, more = damaged[0], f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        raise CheckpointError.at("damaged in the cache", first.path, first.why + more, first.advice)


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
    damaged = damages(folder) if folder is not None else []
    if damaged:
        first = damaged[0]
        return CheckpointError.at("damaged in the cache", first.path, first.why, first.advice)
    if isinstance(cause, HfHubHTTPError):
        return _network_error(hub_id, _status(cause.response.status_code), "Try again later")
    here = "only a part of it is in the cache" if folder is not None else "not in the cache"
    is_offline = offline or isinstance(cause, OfflineModeIsEnabled)
    why = f"{here} and {'offline' if is_offline else 'the hub cannot be reached'}"
    return _network_error(hub_id, why, "Connect to the network and try again, or use --backbone mini")


def _status(code: int) -> str:
    meanings = {
        401: "the hub does not accept the token",
        403: "the hub refuses access",
        404: "a file is not there",
        429: "too many requests",
    }
    return f"{meanings.get(code, 'the hub has a problem' if code >= 500 else 'the hub refuses')} ({code})"


def _unwritable(error: OSError) -> ResourceError:
    from huggingface_hub import constants

    advice = "Free some space, or set HF_HOME to a folder that can be written"
    return ResourceError.at("cannot write the cache", constants.HF_HUB_CACHE, os.strerror(error.errno or 0), advice)


def _network_error(hub_id: str, why: str, advice: str) -> NetworkError:
    return NetworkError.at("cannot get model", printable(hub_id), why, advice)


def _checkpoint_error(hub_id: str, why: str, advice: str) -> CheckpointError:
    return CheckpointError.at("refused model", printable(hub_id), why, advice)


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
        first = "Delete it and" if self.path.exists() else "Connect to the network and"
        return f"{first} run again: it alone is downloaded"


def damages(folder: Path) -> list[Damage]:
    """Finds what is not whole in a folder of the hub's cache; reads no tensors."""
    return [*_missing_shards(folder), *(damage for path in sorted(folder.rglob("*")) for damage in _damage(path))]


def _damage(path: Path) -> Iterator[Damage]:
    if path.is_symlink() and not path.exists():
        yield Damage(path=path, why="it is a link to a file that is gone")
    elif path.is_file() and path.stat().st_size == 0:
        yield Damage(path=path.resolve(), why=f"{path.name} is empty")
    elif path.suffix == ".safetensors" and path.is_file():
        yield from _truncation(path)


def _truncation(path: Path) -> Iterator[Damage]:
    try:
        facts = [values for name, values in header(path).items() if name != "__metadata__"]
        with path.open("rb") as file:
            expected = 8 + int.from_bytes(file.read(8), "little") + max(values["data_offsets"][1] for values in facts)
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
