"""What is frozen is computed once: the projection's input for every sample, in a file that is mapped into memory.

The vision tower, the Q-Former and CMAA's U_mm are constants of this training. Each sample is computed alone, in eval
mode, so that a cached row is bit for bit what would be computed anew.

Legend: N samples, P prefix positions (Q, or 2Q under EMA), D the Q-Former's width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vlinstruct.checkpoints.atomic import written_atomically
from vlinstruct.data.conversations import TrainingSample
from vlinstruct.data.durable import file_sha256
from vlinstruct.data.images import load_image
from vlinstruct.data.read_ahead import read_ahead
from vlinstruct.model.vlm import VisionLanguageModel

_READ_AHEAD = 4


class Features:
    """The rows, and which of them are computed.

    Args:
        folder: where the files are; made if it is missing.
        fingerprint: of everything that the rows depend on; files of another one are computed anew.
        num_samples: N.
        shape: (P, D).
        dtype: of the rows.
    """

    def __init__(
        self, folder: Path, *, fingerprint: str, num_samples: int, shape: tuple[int, int], dtype: torch.dtype
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.shape, self.dtype = shape, dtype
        self.row_bytes = row_bytes(shape, dtype)
        marks, mark = folder / "features.json", {"fingerprint": fingerprint, "rows": num_samples, "dtype": str(dtype)}
        is_known = marks.exists() and json.loads(marks.read_text(encoding="utf-8")) == mark
        mode: Literal["r+", "w+"] = "r+" if is_known else "w+"
        self.rows = np.memmap(folder / "features.bin", np.uint8, mode, shape=(num_samples, self.row_bytes))
        self.is_computed = np.memmap(folder / "computed.bin", np.uint8, mode, shape=(num_samples,))
        if not is_known:
            self.is_computed.flush()
            with written_atomically(marks) as path:
                path.write_text(json.dumps(mark), encoding="utf-8")

    def missing(self) -> list[int]:
        """Returns the samples that are not computed yet."""
        return [int(index) for index in np.flatnonzero(self.is_computed == 0)]

    def write(self, index: int, row: Tensor) -> None:
        """Keeps a sample's row, (P, D)."""
        self.rows[index] = row.detach().cpu().to(self.dtype).contiguous().view(torch.uint8).flatten().numpy()
        self.is_computed[index] = 1

    def flush(self) -> None:
        """Brings all rows to the disk."""
        self.rows.flush()
        self.is_computed.flush()

    def read(self, indices: Sequence[int]) -> Tensor:
        """Returns the rows of samples, (len(indices), P, D)."""
        return torch.from_numpy(np.array(self.rows[list(indices)])).view(self.dtype).view(len(indices), *self.shape)


def row_bytes(shape: tuple[int, int], dtype: torch.dtype) -> int:
    """Returns the bytes of one sample."""
    return shape[0] * shape[1] * dtype.itemsize


def feature_shape(model: VisionLanguageModel) -> tuple[int, int]:
    """Returns (P, D)."""
    config = model.model.config
    positions = config.num_query_tokens * (2 if model.model.use_ema else 1)
    return positions, config.qformer_config.hidden_size


def features_fingerprint(samples: Sequence[TrainingSample], model: VisionLanguageModel, weights: str) -> str:
    """Identifies what the rows depend on: weights, EMA, dtype, and of every sample its picture's bytes and its text."""
    digest = hashlib.sha256(json.dumps([weights, model.model.use_ema, str(model.dtype)]).encode())
    pictures: dict[Path, str] = {}
    for sample in samples:
        if sample.image not in pictures:
            pictures[sample.image] = _picture_sha256(sample.image)
        digest.update(json.dumps([pictures[sample.image], sample.instruction]).encode())
    return digest.hexdigest()


def _picture_sha256(path: Path) -> str:
    """Returns a picture's checksum; one that cannot be read is reported when its turn comes."""
    try:
        return file_sha256(path)
    except OSError:
        return "unreadable"


def compute_features(
    model: VisionLanguageModel,
    samples: Sequence[TrainingSample],
    features: Features,
    *,
    on_progress: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Computes the missing rows; a picture that several samples share goes through the vision tower once.

    Args:
        model: frozen, in eval mode.
        samples: all of them.
        features: gets the rows.
        on_progress: called for every row.
        should_stop: asked before every picture.

    Returns:
        Whether all rows are there.

    Raises:
        ImageError: a picture cannot be read.
    """
    missing = sorted(features.missing(), key=lambda index: (str(samples[index].image), index))
    pictures = [(path, list(rows)) for path, rows in groupby(missing, key=lambda index: samples[index].image)]
    loaded = read_ahead([path for path, _ in pictures], lambda path: load_image(path).image, num_ahead=_READ_AHEAD)
    for (_, rows), image in zip(pictures, loaded, strict=True):
        if should_stop():
            features.flush()
            return False
        percept = model.encode([image])
        for index in rows:
            features.write(index, model.alignment_input(percept, samples[index].instruction))
            on_progress()
    features.flush()
    return True
