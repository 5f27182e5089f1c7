"""Writes a whole InstructBLIP folder, reads one as weights that are still in their files, and makes one of another."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import (
    empty_model,
    is_constant,
    optional_tensors,
    original_name,
    require_same_table,
    require_same_tensors,
)
from vlinstruct.conversion.atomic_folder import folder_written_atomically, remove_leftovers, require_replaceable
from vlinstruct.conversion.shard_writer import OnShard, write_shards
from vlinstruct.conversion.weights import (
    Weight,
    as_dtype,
    is_finite,
    listed,
    num_bytes,
    require_finite,
    require_floating,
    stored,
    whole,
)
from vlinstruct.errors import CheckpointError, ResourceError
from vlinstruct.files import leads_out, read_json_object
from vlinstruct.weights.hub import refuse_code
from vlinstruct.weights.safetensors_files import INDEX_FILE, shards, tensors

Notify = Callable[[str], None]
"""Is told what a user should know: what was ignored, left out or made up, with its count."""

_GB = 10**9
_QFORMER_TOKENIZER = "qformer_tokenizer"
LANGUAGE_MODEL = "language_model."  # what its tensors' names begin with
# A list of what may be copied, not of what may not: folders of the hub hold code (`auto_map`) and pickles.
_COPIED = ("*.json", "*.model", "*.txt", "*.jinja", "*.md", "LICENSE*")


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How a model folder is written.

    Args:
        target: where to.
        dtype: what its files hold; as stored if None.
        max_shard_bytes: most bytes of a file, unless a single tensor is larger.
        force: whether a model or adapter folder that stands at the target is replaced.
        keep_nonfinite: whether tensors that hold NaN or infinity are written, and named, in place of being refused.
        notify: is told what a user should know.
        on_shard: is told how far it is.
    """

    target: Path
    dtype: torch.dtype | None = None
    max_shard_bytes: int = 5 * _GB
    force: bool = False
    keep_nonfinite: bool = False
    notify: Notify = lambda message: None
    on_shard: OnShard = lambda done, total: None

    def require_target(self) -> None:
        """Refuses a target that may not be written, before anything is read.

        Raises:
            InputError: something stands there.
        """
        require_replaceable(self.target, force=self.force)
        for folder in remove_leftovers(self.target):
            self.notify(f"{folder} is of a run that writes here now, or was killed: delete it if none runs")

    def judge_nonfinite(self, names: Sequence[str], source: str) -> None:
        """Tells of tensors that hold NaN or infinity where they are kept.

        Raises:
            CheckpointError: they are not.
        """
        if not self.keep_nonfinite:
            require_finite(names, source)
        elif names:
            self.notify(f"{len(names)} tensors in {source} hold NaN or infinity and were kept: {listed(names)}")


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written.

    Args:
        folder: where.
        num_tensors: in all files.
        size_bytes: of all tensors.
        files: their names.
    """

    folder: Path
    num_tensors: int
    size_bytes: int
    files: tuple[str, ...]


def stored_weights(folder: Path, notify: Notify, *, prefix: str = "") -> dict[str, Weight]:
    """Reads a folder's safetensors files as weights.

    Args:
        folder: of a model.
        notify: is told what is left out.
        prefix: what a name gets in front.

    Raises:
        CheckpointError: a file is missing, damaged, or has a tensor twice or far more of them than any model.
    """
    weights: dict[str, Weight] = {}
    left_out: list[str] = []
    copies: dict[str, Tensor] = {}
    for path in shards(folder):
        for name, tensor in tensors(path):
            if prefix + name in weights:
                raise CheckpointError(
                    f"two files of {folder} have the tensor {name[:80]}", advice="Download the model again."
                )
            if original_name(prefix + name) != prefix + name:
                copies[prefix + name] = tensor
            elif is_constant(prefix + name):
                left_out.append(name)
            else:
                weights[prefix + name] = stored(tensor)
    for name, tensor in copies.items():
        original = original_name(name)
        if original in weights:
            require_same_table(whole(weights[original]), tensor, name)
            left_out.append(name.removeprefix(prefix))
        else:
            weights[original] = stored(tensor)
    if left_out:
        notify(f"{folder.name}: {len(left_out)} tensors are left out, they repeat others: {listed(left_out)}")
    return weights


def is_left_out(name: str) -> bool:
    """Says whether a tensor repeats another one, or constants that the model computes itself."""
    return is_constant(name) or original_name(name) != name


def copy_others(source: Path, target: Path, *, notify: Notify) -> None:
    """Copies what a model's folder has beside config.json and weights: tokenizers, settings, its card and licence.

    Never code or pickles, nor what a link fetches from elsewhere: a stranger's folder may hold a LICENSE that leads to
    somebody's credentials. The names of what is not copied are told to `notify`.
    """
    replaced = {"config.json", INDEX_FILE, *(path.name for path in shards(source))}
    places = [place for place in (source, source / _QFORMER_TOKENIZER) if place.is_dir()]
    paths = [path for place in places for path in sorted(place.iterdir()) if not path.name.startswith(".")]
    others = [path for path in paths if path.name not in replaced and path.name != _QFORMER_TOKENIZER]
    taken = [path for path in others if path.is_file() and any(path.match(pattern) for pattern in _COPIED)]
    copied = [path for path in taken if not leads_out(path, source)]
    for path in copied:
        (target / path.relative_to(source)).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target / path.relative_to(source))
    if len(copied) < len(others):
        names = [str(path.relative_to(source)) for path in others if path not in copied]
        notify(f"{source.name}: {len(names)} files are not copied: {listed(names)}")


def write_model_folder(
    weights: Mapping[str, Weight],
    config: Mapping[str, Any],
    writing: Writing,
    *,
    source: str,
    write_others: Callable[[Path], None],
    optional: Collection[str] = (),
) -> Written:
    """Writes a folder that is whole or not there.

    Args:
        weights: by transformers' name.
        config: the content of `config.json`.
        writing: where to, and how.
        source: what to call the weights' source in messages.
        write_others: writes tokenizers and the like into the folder.
        optional: tensors that may be missing.

    Raises:
        CheckpointError: tensors are missing, unexpected, of a wrong shape or type, or not finite; all named together.
        InputError: something stands at the target.
        ResourceError: the disk is full or not writable.
    """
    architecture = InstructBlipConfig.from_dict(config)
    expected = empty_model(architecture).state_dict()  # on the meta device: names and shapes take no memory
    names = [name for name in expected if name in weights or name not in optional]
    require_floating(weights, source)
    require_same_tensors(weights, {name: expected[name] for name in names}, source)
    rounded = {name: as_dtype(weights[name], writing.dtype) for name in names}
    if writing.dtype == torch.float16 and architecture.text_config.overflows_in_float16:
        writing.notify("FlanT5 overflows when it computes in float16: load the folder in bfloat16 or float32")
    size_bytes = sum(map(num_bytes, rounded.values()))
    _require_disk(writing.target, size_bytes)
    with folder_written_atomically(writing.target, force=writing.force) as folder:
        write_json(folder / "config.json", _with_dtype(config, writing.dtype))
        write_others(folder)
        written = write_shards(folder, rounded, max_shard_bytes=writing.max_shard_bytes, on_shard=writing.on_shard)
        _judge(written.not_finite, weights, writing, source)
    return Written(folder=writing.target, num_tensors=len(rounded), size_bytes=size_bytes, files=written.files)


def convert_folder(source: Path, writing: Writing) -> Written:
    """Writes a model's folder anew, in files of another size or type.

    Args:
        source: an InstructBLIP folder.
        writing: where to, and how.

    Raises:
        CheckpointError: something is missing, damaged or does not fit; what, is named.
        InputError: something stands at the target.
        ResourceError: the disk is full or not writable.
    """
    writing.require_target()
    refuse_code(source, str(source))
    values = read_json_object(source / "config.json")
    config = InstructBlipConfig.from_dict(values)
    return write_model_folder(
        stored_weights(source, writing.notify),
        values,
        writing,
        source=source.name,
        write_others=partial(copy_others, source, notify=writing.notify),
        optional=optional_tensors(config),
    )


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a small JSON file as transformers does it."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _with_dtype(config: Mapping[str, Any], dtype: torch.dtype | None) -> dict[str, Any]:
    """transformers loads a folder in the type that its configuration names, whatever the files hold."""
    if dtype is None:
        return dict(config)
    values = {name: value for name, value in config.items() if name not in ("dtype", "torch_dtype")}
    parts = {name: _with_dtype(part, dtype) for name, part in values.items() if isinstance(part, dict)}
    return {**values, **parts, "dtype": str(dtype).removeprefix("torch.")}


def _judge(names: Collection[str], weights: Mapping[str, Weight], writing: Writing, source: str) -> None:
    """Refuses, or names, tensors that were written with NaN or infinity; numbers beyond a dtype are always refused."""
    overflown = [name for name in names if is_finite(weights[name])]
    stored = [name for name in names if name not in overflown]
    writing.judge_nonfinite(stored, source)
    if overflown:
        raise CheckpointError(
            f"{len(overflown)} tensors in {source} hold numbers beyond {str(writing.dtype)[6:]} ({listed(overflown)})",
            advice="Take bfloat16 or float32; nothing was written.",
        )


def _require_disk(target: Path, size_bytes: int) -> None:
    place = Path(os.path.realpath(target)).parent
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if size_bytes > free:
        why = f"it takes {size_bytes / _GB:.1f} GB, {free / _GB:.1f} GB of the disk are free"
        raise ResourceError.at("cannot write folder", target, why, "Free some space, or give another --output")
