"""What lies in the hub's cache, and what of it is not whole after a broken-off download or a clean-up. No torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vlinstruct.errors import CheckpointError
from vlinstruct.files import read_json_object
from vlinstruct.weights.safetensors_files import INDEX_FILE, header


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
