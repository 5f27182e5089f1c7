"""A backbone's folder, opened once for all checks: where it comes from, its files, and its tensors."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import (
    empty_model,
    optional_tensors,
    require_same_tensors,
)
from vlinstruct.backends.instructblip.tokenization import read_tokenizer
from vlinstruct.backends.registry import BACKBONES, resolve
from vlinstruct.conversion.model_folder import stored_weights
from vlinstruct.conversion.weights import Weight, is_finite, listed, num_bytes, require_floating
from vlinstruct.doctor.finding import DoctorSettings, Finding, notice, ok, problem
from vlinstruct.errors import counted
from vlinstruct.weights.hub import cached_folder, damages
from vlinstruct.weights.safetensors_files import shards

logger = logging.getLogger(__name__)

_GB = 10**9
_SLOW_BYTES = 2 * _GB  # reading as much takes seconds
_AGAIN = "Download or copy the folder again"


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A folder whose configuration is understood; the rest is read when a check asks for it.

    Args:
        folder: config.json, safetensors, tokenizers.
        values: the content of config.json.
        config: the architecture, parsed from `values`.
        settings: how it is meant to run.
    """

    folder: Path
    values: Mapping[str, Any]
    config: InstructBlipConfig
    settings: DoctorSettings

    @cached_property
    def weights(self) -> Mapping[str, Weight]:
        """The tensors by name, read from their files when they are used.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        return stored_weights(self.folder, notify=lambda message: None)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The language model's tokenizer.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        return read_tokenizer(self.folder)

    @cached_property
    def qformer_tokenizer(self) -> Tokenizer:
        """The Q-Former's tokenizer.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        return read_tokenizer(self.folder / "qformer_tokenizer")

    @property
    def num_files(self) -> int:
        """How many safetensors files hold the weights."""
        return len(shards(self.folder))


def find_folder(settings: DoctorSettings) -> tuple[Path | None, Finding]:
    """Finds the backbone's folder without a download; None where it is not here.

    Raises:
        CheckpointError: the name is unknown.
    """
    name, source = settings.backbone, resolve(settings.backbone)
    if isinstance(source, Path):
        return source, ok("backbone", "ships in this package" if name in BACKBONES else f"the folder {source}")
    folder = cached_folder(source)
    if folder is not None:
        return folder, ok("backbone", f"{source} in the cache, commit {folder.name[:12]}")
    size = f", {BACKBONES[name].download_gb:.0f} GB to download" if name in BACKBONES else ""
    fix = f"Get it with: hf download {source} --exclude '*.bin'"
    return None, notice("backbone", f"{source} is not in the cache{size}: not examined", fix)


def damaged_files(folder: Path) -> Iterator[Finding]:
    """Files that are cut short, empty, or links to nothing."""
    for damage in damages(folder):
        yield problem("files", f"{damage.path}: {damage.why}", damage.advice)


def dtype(model: ModelFolder) -> Iterator[Finding]:
    """The number types in the files; every one of them is converted to the type that the model computes in."""
    require_floating(model.weights, str(model.folder))
    counts = Counter(str(weight.dtype).removeprefix("torch.") for weight in model.weights.values())
    kinds = ", ".join(f"{count} tensors of {kind}" for kind, count in counts.most_common())
    files = counted(model.num_files, "file")
    yield ok("dtype", f"{kinds}; {sum(map(num_bytes, model.weights.values())) / _GB:.2f} GB in {files}")


def tensors(model: ModelFolder) -> Iterator[Finding]:
    """Whether every tensor of the architecture is there in its shape, and no other."""
    expected = empty_model(model.config).state_dict()
    left_out = [name for name in optional_tensors(model.config) if name not in model.weights]
    for name in left_out:
        del expected[name]
    require_same_tensors(model.weights, expected, str(model.folder))
    shared = "; the head is the embedding" if left_out else ""
    yield ok("tensors", f"all {len(expected)} are there, in their shapes{shared}")


def finite(model: ModelFolder) -> Iterator[Finding]:
    """Whether no number is NaN or infinite; reads all of them, a piece at a time."""
    size = sum(map(num_bytes, model.weights.values()))
    if size > _SLOW_BYTES:
        logger.warning("reading %.0f GB of weights", size / _GB)
    broken = [name for name, weight in model.weights.items() if not is_finite(weight)]
    if broken:
        yield problem("finite", f"{len(broken)} tensors hold NaN or infinity: {listed(broken)}", _AGAIN)
    else:
        yield ok("finite", "none is NaN or infinite")
