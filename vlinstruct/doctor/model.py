"""A backbone's folder, opened once for all checks; and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.registry import BACKBONES, resolve
from vlinstruct.doctor.finding import Finding, notice, ok, problem
from vlinstruct.doctor.wanted import Wanted
from vlinstruct.weights.download import cached_folder, damages
from vlinstruct.weights.safetensors_files import shards

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from vlinstruct.conversion.weights import Weight


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A folder whose configuration is understood; the rest is read when a check asks for it.

    Args:
        folder: config.json, safetensors, tokenizers.
        values: the content of config.json.
        config: the same, understood.
        wanted: how it is meant to run.
    """

    folder: Path
    values: Mapping[str, Any]
    config: InstructBlipConfig
    wanted: Wanted

    @cached_property
    def weights(self) -> Mapping[str, Weight]:
        """Its tensors, still in their files.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        from vlinstruct.conversion.model_folder import stored_weights

        return stored_weights(self.folder, notify=lambda message: None)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The language model's.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        from vlinstruct.backends.instructblip.load import read_tokenizer

        return read_tokenizer(self.folder)

    @cached_property
    def qformer_tokenizer(self) -> Tokenizer:
        """The Q-Former's.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        from vlinstruct.backends.instructblip.load import read_tokenizer

        return read_tokenizer(self.folder / "qformer_tokenizer")

    @property
    def num_files(self) -> int:
        """Of its safetensors."""
        return len(shards(self.folder))


def find(wanted: Wanted) -> tuple[Path | None, Finding]:
    """Finds the backbone's folder without a download; None where it is not here.

    Raises:
        CheckpointError: nothing is known by that name.
    """
    found = resolve(wanted.backbone)
    if isinstance(found, Path):
        source = "ships in this package" if wanted.backbone in BACKBONES else f"the folder {found}"
        return found, ok("backbone", source)
    folder = cached_folder(found)
    if folder is None:
        return None, _not_here(wanted, found)
    return folder, ok("backbone", f"{found} in the cache, commit {folder.name[:12]}")


def _not_here(wanted: Wanted, hub_id: str) -> Finding:
    size = f", {BACKBONES[wanted.backbone].download_gb:.0f} GB to download" if wanted.backbone in BACKBONES else ""
    fix = f"Get it with: hf download {hub_id} --exclude '*.bin'"
    return notice("backbone", f"{hub_id} is not in the cache{size}: not examined", fix)


def damaged_files(folder: Path) -> Iterator[Finding]:
    """Files that are not whole."""
    for damage in damages(folder):
        yield problem("files", f"{damage.path}: {damage.why}", damage.advice)
