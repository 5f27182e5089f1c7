"""The verb `convert`: tells sources apart, refuses options that would be ignored, and runs one of four conversions.

What becomes what follows from the sources and from `to`:

    files and a folder   to model     LAVIS's files, with the language model's folder, become a model
    a folder             to model     a model becomes another one, of other files or types
    files                to adapter   a fine-tuning's file becomes an adapter
    a folder             to merged    an adapter becomes a model, merged into its backbone

No torch until one runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vlinstruct.backends.registry import BACKBONES, find, find_folder, require_instructblip
from vlinstruct.errors import InputError, UsageError, shortened
from vlinstruct.files import read_json_object

if TYPE_CHECKING:
    from vlinstruct.conversion.model_folder import Written

To = Literal["model", "adapter", "merged"]
Kind = Literal["lavis", "folder", "adapter", "merged"]

_WRITING = ("--dtype", "--max-shard-size")
_TAKES: Mapping[Kind, tuple[str, ...]] = {
    "lavis": ("--backbone", "--config", "--qformer-tokenizer", *_WRITING),
    "folder": _WRITING,
    "adapter": ("--backbone", "--config", "--ema"),
    "merged": ("--backbone", *_WRITING),
}
_NAMES: Mapping[Kind, str] = {
    "lavis": "LAVIS files to a model",
    "folder": "a model folder to another one",
    "adapter": "a checkpoint to an adapter",
    "merged": "an adapter to a model",
}
# What torch.save writes under; safetensors come in folders, with the configuration that tells their shape.
_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,12})?) ?([KMGT]?)B?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was converted, and what it became.

    Args:
        kind: which of the four conversions.
        folder: the new one.
        num_tensors: in all its files.
        size_bytes: of all tensors.
        files: the names of the files that hold them.
        notices: what a user should know: what was left out, ignored or made up, with its count.
    """

    kind: Kind
    folder: Path
    num_tensors: int
    size_bytes: int
    files: tuple[str, ...]
    notices: tuple[str, ...]

    @property
    def name(self) -> str:
        """Says which conversion it was, e.g. `LAVIS files to a model`."""
        return _NAMES[self.kind]


def convert(
    sources: Sequence[str | PathLike[str]],
    output: str | PathLike[str],
    *,
    to: To = "model",
    backbone: str | None = None,
    config: str | PathLike[str] | None = None,
    qformer_tokenizer: str | PathLike[str] | None = None,
    use_ema: bool | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    max_shard_size: str | None = None,
    force: bool = False,
    keep_nonfinite: bool = False,
    offline: bool = False,
    notify: Callable[[str], None] = lambda message: None,
    on_shard: Callable[[int, int], None] = lambda done, total: None,
) -> Conversion:
    """Turns LAVIS's checkpoints, adapters and model folders into folders that can be loaded.

    Nothing is dropped silently, no code in a file is run, and the new folder is whole or as it was.

    Args:
        sources: .pth files, and folders by name, path or hub id.
        output: the new folder.
        to: `model`, `adapter`, or `merged`: adapter and backbone in one model.
        backbone: the model that files or an adapter belong to, by name, path or hub id.
        config: a `config.json` of another shape, in the place of a known backbone's.
        qformer_tokenizer: bert-base-uncased's folder, for a model of LAVIS's files.
        use_ema: whether CMAA was on in an adapter's training, which no file tells; not, if None.
        dtype: what the new files hold; as stored if None.
        max_shard_size: most bytes of a file unless a single tensor is larger, e.g. `500MB`; 5GB if None.
        force: whether a model or adapter folder that stands at the output is replaced.
        keep_nonfinite: whether tensors that hold NaN or infinity are written, and named, in place of being refused.
        offline: use what is cached, open no connection.
        notify: is told every notice as it comes.
        on_shard: is told after each file how many are written, and of how many.

    Raises:
        UsageError: sources and options do not make a conversion, or an option would be ignored.
        CheckpointError: something is missing, damaged, unsafe or does not fit; what, is named.
        InputError: a file is not there, or something stands at the output.
        NetworkError: something is not cached and cannot be downloaded.
        ResourceError: the disk is full or not writable.
    """
    names = [os.fspath(source) for source in sources]
    files = [name for name in names if Path(name).is_file() or name.endswith(_SUFFIXES)]
    missing = next((file for file in files if not Path(file).is_file()), None)
    if missing is not None:
        raise InputError.at("cannot read checkpoint", missing, "there is no such file", "Check the path")
    folders = [name for name in names if name not in files]
    kind = _kind(files, folders, to)
    options = {"--backbone": backbone, "--config": config, "--qformer-tokenizer": qformer_tokenizer, "--ema": use_ema}
    _require_taken(kind, {**options, "--dtype": dtype, "--max-shard-size": max_shard_size})
    max_shard_bytes = _num_bytes(max_shard_size or "5GB")
    for name in (*folders, *([] if backbone is None else [backbone])):
        require_instructblip(name, what="cannot convert")

    import torch

    from vlinstruct.conversion.model_folder import Writing

    notices: list[str] = []

    def gather(message: str) -> None:
        notices.append(message)
        notify(message)

    writing = Writing(
        target=Path(output),
        dtype=getattr(torch, dtype) if dtype else None,
        max_shard_bytes=max_shard_bytes,
        force=force,
        keep_nonfinite=keep_nonfinite,
        notify=gather,
        on_shard=on_shard,
    )

    def model_config() -> dict[str, Any] | None:
        """Returns the `config.json` that was chosen: a known backbone's without a download; None if none was."""
        if config is not None:
            return read_json_object(Path(config))
        if backbone is None or backbone in BACKBONES:
            return None if backbone is None else BACKBONES[backbone].config()
        return dict(find(backbone, offline=offline).config)

    written: Written
    if kind == "lavis":
        from vlinstruct.conversion.lavis import LavisParts, import_lavis
        from vlinstruct.conversion.part_folders import configuration_for

        language_model = find_folder(folders[0], offline=offline, what="language model")
        parts = LavisParts(
            files=[Path(file) for file in files],
            language_model=language_model,
            bert=Path(qformer_tokenizer or ""),
            config=model_config() or configuration_for(language_model),
        )
        written = import_lavis(parts, writing)
    elif kind == "folder":
        from vlinstruct.conversion.model_folder import convert_folder

        written = convert_folder(find_folder(folders[0], offline=offline, what="model folder"), writing)
    elif kind == "adapter":
        from vlinstruct.conversion.adapters import extract_adapter

        values = model_config()
        assert values is not None
        written = extract_adapter([Path(file) for file in files], values, writing, use_ema=use_ema is True)
    else:
        from vlinstruct.conversion.adapters import merge_adapter

        assert backbone is not None
        adapter = find_folder(folders[0], offline=offline, what="adapter")
        written = merge_adapter(adapter, find_folder(backbone, offline=offline), writing)
    return Conversion(
        kind=kind,
        folder=written.folder,
        num_tensors=written.num_tensors,
        size_bytes=written.size_bytes,
        files=written.files,
        notices=tuple(notices),
    )


def _kind(files: Sequence[str], folders: Sequence[str], to: To) -> Kind:
    """Returns what is to be converted to what; the sources alone do not tell."""
    if to == "adapter":
        if not files or folders:
            raise UsageError("--to adapter takes .pth files and no folder.")
        return "adapter"
    if len(folders) != 1 or (to == "merged" and files):
        takes = (
            "one adapter folder" if to == "merged" else "one folder, and with it LAVIS's .pth files if there are any"
        )
        hint = ": FlanT5's or Vicuna's, for the language model and its tokenizer" if files and to == "model" else ""
        raise UsageError(f"--to {to} takes {takes}{hint}; got {len(files)} files and {len(folders)} folders.")
    if to == "merged":
        return "merged"
    if any((Path(folders[0]) / name).is_file() for name in ("alignment_config.json", "adapter_config.json")):
        raise UsageError(f"{shortened(folders[0], 80)} is an adapter: --to merged --backbone FOLDER makes a model.")
    return "lavis" if files else "folder"


def _require_taken(kind: Kind, options: Mapping[str, object]) -> None:
    """Refuses options that would be ignored, and names those that are missing."""
    typed = {name for name, value in options.items() if value is not None}
    ignored = [name for name in options if name in typed and name not in _TAKES[kind]]
    if ignored:
        raise UsageError(f"{', '.join(ignored)} cannot be used here: this converts {_NAMES[kind]}.")
    if {"--backbone", "--config"} <= typed:
        raise UsageError("--backbone and --config contradict each other: both tell the shape of the model.")
    if kind == "lavis" and "--qformer-tokenizer" not in typed:
        raise UsageError(
            "--qformer-tokenizer FOLDER is needed: LAVIS's files have no tokenizer",
            advice="Get tokenizer.json of "
            "huggingface.co/google-bert/bert-base-uncased; [DEC] is added, which makes its 30,523 tokens.",
        )
    if kind in ("adapter", "merged") and not {"--backbone", "--config"} & typed:
        source = "checkpoint" if kind == "adapter" else "adapter"
        raise UsageError(f"--backbone is needed: the model that the {source} was made for.")


def _num_bytes(size: str) -> int:
    """Returns a size in bytes; powers of 1000, as transformers has them.

    >>> _num_bytes("5GB"), _num_bytes("1.5 kb"), _num_bytes("100")
    (5000000000, 1500, 100)
    """
    match = _SIZE.fullmatch(size.strip())
    num_bytes = int(float(match[1]) * 1000 ** _POWERS[match[2].upper()]) if match else 0
    if num_bytes < 1:
        raise UsageError(
            f"--max-shard-size {shortened(size, 40)} is no size", advice="Give a number and a unit, e.g. 500MB."
        )
    return num_bytes
