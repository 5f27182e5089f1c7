"""Identifies what a model or an adapter computes with: every file of its folder that is read, not a list of some.

Whoever resumes a file of records or uses cached features goes on with work of an earlier run. A changed tokenizer or
image setting changes that work as much as other weights do, so whatever a folder may hold for a loader counts: the
patterns are those that a download takes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from vlinstruct.files import file_sha256, open_regular
from vlinstruct.weights.safetensors_files import header, shards

SETTINGS_FILES = ("*.json", "*.jinja", "*.model", "*.txt")
"""What a loader may read beside the weights, in a model's folder and in its `qformer_tokenizer/`."""

_NUM_SAMPLES, _SAMPLE_BYTES = 64, 4096


def fingerprint(folder: Path) -> str:
    """Identifies a model's folder without reading all of its weights.

    Returns:
        16 hex digits of a SHA-256 over its settings' and tokenizers' files, and over every shard's size, header and 64
        blocks of 4 KiB spread over the file: other weights of the same shape change it, copying and touching the files
        does not.

    Raises:
        CheckpointError: a file is missing, damaged or no regular file.
    """
    digest = hashlib.sha256()
    # Sampled: whoever resumes waits for it, and a hash over all of Vicuna-13B would read 57 GB.
    for path in shards(folder):
        size = path.stat().st_size
        digest.update(json.dumps([path.name, size, header(path)], sort_keys=True).encode())
        with open_regular(path, kind="model") as file:
            for index in range(_NUM_SAMPLES):
                file.seek(index * max(size - _SAMPLE_BYTES, 0) // (_NUM_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    for name, path in settings_files(folder):
        digest.update(json.dumps([name, file_sha256(path, kind="model")]).encode())
    return digest.hexdigest()[:16]


def adapter_fingerprint(folder: Path) -> str:
    """Identifies an adapter: 16 hex digits over all of its JSON and safetensors files, those of `lora/` included.

    Raises:
        CheckpointError: a file cannot be read.
    """
    paths = [
        path
        for pattern in ("*.json", "*.safetensors")
        for path in (*folder.glob(pattern), *folder.glob(f"lora/{pattern}"))
    ]
    names = sorted((str(path.relative_to(folder)), path) for path in paths)
    parts = [[name, file_sha256(path, kind="model")] for name, path in names]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def settings_files(folder: Path) -> Iterable[tuple[str, Path]]:
    """Returns the names and paths of a model folder's files beside its weights, sorted."""
    places = ("", "qformer_tokenizer/")
    paths = [path for place in places for pattern in SETTINGS_FILES for path in folder.glob(place + pattern)]
    return sorted((str(path.relative_to(folder)), path) for path in paths)
