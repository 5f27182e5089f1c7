"""What is frozen is computed once and kept in a file that is mapped into memory.

The vision tower, the Q-Former and CMAA's U_mm are constants of this training unless they are asked to learn. Rows are
computed in eval mode in batches of one shape, filled up where rows lack, so that a row is bit for bit the same whatever
is computed with it: a cached one is what would be computed anew.

Legend: N rows, R x W a row's shape (see `frontier`), T instruction tokens.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.errors import ImageError
from vlinstruct.files import written_atomically
from vlinstruct.media.images import DEFAULT_LIMITS, ImageLimits
from vlinstruct.media.read_ahead import read_ahead, side_by_side
from vlinstruct.training.data.conversations import TrainingSample
from vlinstruct.training.data.reading import TrainingPicture, load_picture, picture_sha256
from vlinstruct.training.frontier import Frontier

_MISSING, _COMPUTED, _UNREADABLE = 0, 1, 2
_READ_AHEAD = 4  # batches of pictures that are decoded beside the model
_MAX_READERS = 16
# Frozen parts of FlanT5-XL's shapes on an H200: alone a picture takes 15.4 ms and a row 11.4, of sixteen 1.07 and 0.65.
_TOGETHER = 16
_TOKENS_STEP = 16  # instructions are padded to a multiple: every length of its own would be a batch of its own

T = TypeVar("T")


class Features:
    """The rows, and which of them are computed.

    Args:
        folder: where the files are; made if it is missing.
        fingerprint: of everything that the rows depend on; files of another one are computed anew.
        num_rows: N.
        shape: (R, W).
        dtype: of the rows.
    """

    def __init__(
        self, folder: Path, *, fingerprint: str, num_rows: int, shape: tuple[int, int], dtype: torch.dtype
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.shape, self.dtype = shape, dtype
        self.row_bytes = row_bytes(shape, dtype)
        marks = folder / "features.json"
        mark = {"fingerprint": fingerprint, "rows": num_rows, "shape": list(shape), "dtype": str(dtype)}
        # Mapped files of one row after the other: they may be larger than memory, any row is read without its
        # neighbours, and a run that is killed keeps what it wrote.
        # A file that was cut off, as by a full disk, would be filled up with zeros and read as if they were computed.
        sizes = {"features.bin": num_rows * self.row_bytes, "computed.bin": num_rows}
        is_same = _parsed(marks) == mark and all(_size_bytes(folder / name) == size for name, size in sizes.items())
        mode: Literal["r+", "w+"] = "r+" if is_same else "w+"
        self.rows = np.memmap(folder / "features.bin", np.uint8, mode, shape=(num_rows, self.row_bytes))
        self.marks = np.memmap(folder / "computed.bin", np.uint8, mode, shape=(num_rows,))
        if not is_same:
            for name, size in sizes.items():
                _reserve(folder / name, size)
            # The zeros first: the new fingerprint beside old marks would declare rows of other weights computed.
            self.marks.flush()
            with written_atomically(marks) as path:
                path.write_text(json.dumps(mark), encoding="utf-8")

    def missing(self) -> list[int]:
        """Returns the rows that are not computed yet."""
        return self._rows(_MISSING)

    def unreadable(self) -> list[int]:
        """Returns the rows whose picture cannot be read."""
        return self._rows(_UNREADABLE)

    def _rows(self, mark: int) -> list[int]:
        return [int(index) for index in np.flatnonzero(self.marks == mark)]

    def write(self, index: int, row: Tensor) -> None:
        """Keeps a row, (R, W)."""
        self.rows[index] = row.detach().cpu().to(self.dtype).contiguous().view(torch.uint8).flatten().numpy()
        self.marks[index] = _COMPUTED

    def leave_out(self, index: int) -> None:
        """Keeps that a row's picture cannot be read."""
        self.marks[index] = _UNREADABLE

    def flush(self) -> None:
        """Brings all rows to the disk."""
        self.rows.flush()
        self.marks.flush()

    def read(self, indices: Sequence[int]) -> Tensor:
        """Returns rows, (len(indices), R, W), on the CPU."""
        return torch.from_numpy(np.array(self.rows[list(indices)])).view(self.dtype).view(len(indices), *self.shape)


def _parsed(path: Path) -> object:
    """Returns what a JSON file holds; None where it is missing or damaged: what it marks is computed anew."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _size_bytes(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _reserve(path: Path, size_bytes: int) -> None:
    """Takes a file's room on the disk now: were there none when a mapped page is written, SIGBUS would end the process.

    Raises:
        OSError: the disk has less room.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size_bytes)


def row_bytes(shape: tuple[int, int], dtype: torch.dtype) -> int:
    """Returns the bytes of one row."""
    return shape[0] * shape[1] * dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class FeatureRows:
    """Which rows there are, and whose.

    Args:
        of_sample: per sample its row.
        firsts: per row the first sample that it belongs to.
    """

    of_sample: Sequence[int]
    firsts: Sequence[TrainingSample]

    @classmethod
    def of(cls, samples: Sequence[TrainingSample], *, is_per_picture: bool) -> FeatureRows:
        """Gives every sample a row, or every picture."""
        if not is_per_picture:
            return cls(of_sample=range(len(samples)), firsts=samples)
        numbers: dict[TrainingPicture, int] = {}
        of_sample = [numbers.setdefault(sample.image, len(numbers)) for sample in samples]
        firsts = {sample.image: sample for sample in reversed(samples)}
        return cls(of_sample=of_sample, firsts=[firsts[path] for path in numbers])


def features_fingerprint(samples: Sequence[TrainingSample], backend: InstructBlipBackend, weights: str) -> str:
    """Identifies what rows depend on: weights, EMA, dtype, size, and of every sample its picture's bytes and text."""
    image_size = backend.network.config.vision_config.image_size
    digest = hashlib.sha256(json.dumps([weights, backend.network.use_ema, str(backend.dtype), image_size]).encode())
    pictures: dict[TrainingPicture, str] = {}
    for sample in samples:
        if sample.image not in pictures:
            pictures[sample.image] = picture_sha256(sample.image) or "unreadable"
        digest.update(json.dumps([pictures[sample.image], sample.instruction]).encode())
    return digest.hexdigest()


def rows_together(device: torch.device) -> int:
    """Returns how many rows a batch has: an accelerator waits for a picture alone, a CPU gains nothing by more."""
    return 1 if device.type == "cpu" else _TOGETHER


def readers_beside(device: torch.device, num_processes: int) -> int:
    """Returns how many threads decode pictures: beside an accelerator a process' share of the cores, on a CPU one.

    One decodes 110 photographs of 640 x 480 in a second, two 220, on two cores of an EPYC 7003: Pillow lets other
    threads go on. An H200 reads 930 in that time (`_TOGETHER`); a CPU computes with its cores itself.
    """
    if device.type == "cpu":
        return 1
    # Those that this process may use, where the system says it (not on macOS).
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MAX_READERS, cores // num_processes))


def refuse(error: ImageError) -> None:
    """Leaves no picture out.

    Raises:
        ImageError: always.
    """
    raise error


@torch.inference_mode()
def compute_features(
    frontier: Frontier,
    rows: FeatureRows,
    features: Features,
    *,
    together: int,
    num_readers: int = 1,
    share: tuple[int, int] = (0, 1),
    limits: ImageLimits = DEFAULT_LIMITS,
    on_begin: Callable[[int], None] = lambda num_pictures: None,
    on_progress: Callable[[], None] = lambda: None,
    on_unreadable: Callable[[ImageError], None] = refuse,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Computes missing rows; a picture that several samples share goes through the vision tower once.

    Args:
        frontier: computes rows; its backend is frozen, in eval mode.
        rows: all of them.
        features: gets the rows.
        together: pictures, and rows, of a batch (`rows_together`).
        num_readers: threads that decode pictures (`readers_beside`); a table, which is read forwards, takes one.
        share: the number of this process and of all: each takes pictures of its own, whatever others have done.
        limits: how large a picture may be, and how whole it must be.
        on_begin: called with the number of pictures that this process has to read.
        on_progress: called for every picture.
        on_unreadable: called for a picture that cannot be read; returns where it is to be left out.
        should_stop: asked before every batch of pictures; some rows stay missing then.

    Raises:
        ImageError: a picture cannot be read.
    """
    pictures = _missing_of(share, rows, set(features.missing()))
    on_begin(len(pictures))
    read, sources = _reader(frontier.backend, limits), [picture for picture, _ in pictures]
    if num_readers > 1 and all(isinstance(picture, Path) for picture in sources):
        loaded = side_by_side(sources, read, num_threads=num_readers)
    else:
        loaded = read_ahead(sources, read, num_ahead=_READ_AHEAD * together)
    for group in batches(pictures, together):
        if should_stop():
            break
        readable: list[tuple[Tensor, list[int]]] = []
        for (_, numbers), pixels in zip(group, loaded, strict=False):
            if isinstance(pixels, Tensor):
                readable.append((pixels, numbers))
                continue
            on_unreadable(pixels)
            for row in numbers:
                features.leave_out(row)
        for row, values in _computed(frontier, rows, readable, together):
            features.write(row, values)  # the bytes, then the mark
        for _ in group:
            on_progress()
    features.flush()


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yields the items, `size` at a time; the last ones may be fewer.

    >>> list(batches([1, 2, 3], 2))
    [[1, 2], [3]]
    """
    for start in range(0, len(items), size):
        yield items[start : start + size]


def filled(items: Sequence[T], size: int) -> list[T]:
    """Returns the items and as many more of the last as make `size` of them.

    >>> filled([1, 2], 4)
    [1, 2, 2, 2]
    """
    return [*items, *[items[-1]] * (size - len(items))]


def _reader(backend: InstructBlipBackend, limits: ImageLimits) -> Callable[[TrainingPicture], Tensor | ImageError]:
    """Returns what reads a picture: its pixel values, (1, 3, image_size, image_size), or why there are none."""

    def read(picture: TrainingPicture) -> Tensor | ImageError:
        try:
            return backend.image_processor([load_picture(picture, limits=limits)])
        except ImageError as error:
            return error

    return read


def _computed(
    frontier: Frontier, rows: FeatureRows, pictures: Sequence[tuple[Tensor, list[int]]], together: int
) -> Iterator[tuple[int, Tensor]]:
    """Yields rows with their values on the CPU, (R, W).

    Args:
        frontier: computes.
        rows: give the instructions.
        pictures: at most `together`, with their rows.
        together: pictures, and rows, of a batch.
    """
    if not pictures:
        return
    backend = frontier.backend
    # Kernels are chosen by a batch's shape and differ in the order of their sums: filled up, a row has the same bits
    # whatever is computed with it.
    pixels = torch.cat(filled([pixels for pixels, _ in pictures], together))
    readings = frontier.read(pixels.to(backend.device, backend.dtype))
    places = [(row, place) for place, (_, numbers) in enumerate(pictures) for row in numbers]
    step = 1 if together == 1 else _TOKENS_STEP
    encode = backend.qformer_tokenizer.encode

    def num_tokens(row_and_place: tuple[int, int]) -> int:  # of its text alone, not of those beside it
        return -(-len(encode(rows.firsts[row_and_place[0]].instruction)) // step) * step

    for padded, group in groupby(sorted(places, key=num_tokens), key=num_tokens):
        for batch in batches(list(group), together):
            full_batch = filled(batch, together)
            texts = [rows.firsts[row].instruction for row, _ in full_batch]
            values = frontier.rows(readings[[place for _, place in full_batch]], texts, padded).cpu()
            yield from ((row, values[i]) for i, (row, _) in enumerate(batch))


def _missing_of(
    share: tuple[int, int], rows: FeatureRows, missing: Set[int]
) -> list[tuple[TrainingPicture, list[int]]]:
    """Returns the pictures of a process' share with their missing rows.

    Shares are made of all pictures: what is missing changes while others compute, and each would see it otherwise.
    """
    ordered = sorted(range(len(rows.firsts)), key=lambda row: (*_order(rows.firsts[row].image), row))
    pictures = [(path, list(group)) for path, group in groupby(ordered, key=lambda row: rows.firsts[row].image)]
    own = [(path, [row for row in group if row in missing]) for path, group in pictures[share[0] :: share[1]]]
    return [(path, group) for path, group in own if group]


def _order(picture: TrainingPicture) -> tuple[str, int]:
    """Returns what pictures are sorted by: a table is read forwards, each jump back costs another pass."""
    return (str(picture), 0) if isinstance(picture, Path) else (str(picture.table.path), picture.row)
