"""Training batches: pictures, what is asked about them, and text-only rows; a pure function of seed and step.

Where drawing would be waited for, other processes draw ahead: on a CPU drawing is a small part of a training step, an
accelerator would wait for it.

Legend: P pictures, R rows (questions), G patches per side, T prompt tokens, S target tokens. Token arrays are padded
with 0 on the right.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing import get_context
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pretrain_mini.labels import PatchLabels, patch_labels
from pretrain_mini.reading import LanguageModelName
from pretrain_mini.rewriting import TextPair, rewriting_pair, scene_pair
from pretrain_mini.row_tokenizer import ReadRows, Rows, RowTokenizer, TextRows, stacked
from pretrain_mini.rows import Pictured, asked_rows, compared_rows, read_question, scored_rows
from vlinstruct.instruction.templates import Templates
from vlinstruct.mini.draw import Size, draw
from vlinstruct.mini.questions import facts
from vlinstruct.mini.scene import Scene
from vlinstruct.mini.world import sample_page, sample_scene

Item = TypeVar("Item")
_COMPARE_EVERY = 2
_ASKED_GROUPS, _TEXT_GROUPS = 4, 3
_AHEAD_PER_WORKER = 2


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """How many of what a step sees.

    Args:
        pictures: P, scenes first, then pages.
        pages: pictures full of words that nothing is asked about; for the dense labels.
        asked: questions to answer.
        scored: instructions to predict from the picture (template B.2), each with one that does not fit.
        rewritten: text-only rewritings (template B.1).
        told: instructions to predict from a scene in words.
        read: questions that the Q-Former reads without a picture, to tell what they ask.
        compared: comparisons of two instructions, in every other step: their prompts are long.
        families: what alone is asked, of scenes that it can be asked about; everything where empty.
        image_size: side of the picture in pixels.
        grid: G.
    """

    pictures: int
    pages: int = 0
    asked: int = 0
    scored: int = 0
    rewritten: int = 0
    told: int = 0
    read: int = 0
    compared: int = 0
    families: tuple[str, ...] = ()
    image_size: int = 120
    grid: int = 10

    def times(self, scale: int) -> BatchShape:
        """Returns the shape of a step that sees `scale` times as much."""
        counts = ("pictures", "pages", "asked", "scored", "rewritten", "told", "read", "compared")
        return replace(self, **{name: scale * getattr(self, name) for name in counts})


# The dense labels need no questions: at first the vision tower learns alone, from more pictures a second.
SEEING = BatchShape(pictures=12, pages=7)
# Text is cheap: then both readers of text learn what people type, without a picture.
TYPING = BatchShape(pictures=0, rewritten=48, told=6, read=64)
# Yes or no depends on what is seen and on a word together, and neither alone tells anything: asked in a tenth of the
# questions, Llama still guessed after 4,600 such.
RELATING = BatchShape(pictures=16, pages=2, asked=56, rewritten=4, families=("position", "same"))
ANSWERING = BatchShape(pictures=18, pages=4, asked=56, scored=10, rewritten=30, read=16, compared=6)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's data.

    Args:
        pixels: (P, 3, image_size, image_size), 0 to 255.
        patches: classes of the patches, each (P, G, G); None without pictures.
        visual: questions, scored instructions and comparisons; empty when nothing is asked. Here and below rows of like
            length stand together, to save padding.
        text: rows without a picture.
        read: questions without a picture, for the Q-Former.
    """

    pixels: NDArray[np.uint8]
    patches: PatchLabels | None
    visual: tuple[Rows, ...]
    text: tuple[TextRows, ...]
    read: tuple[ReadRows, ...]


def picture_at(scene: Scene, size: Size, side: int) -> Image.Image:
    """Draws a scene at `size` and squeezes it to a square as the model's preprocessor does."""
    image = draw(scene, size)
    return image if size == (side, side) else image.resize((side, side), Image.Resampling.BICUBIC)


def _sample_size(side: int, rng: random.Random) -> Size:
    """Samples a picture size: two thirds of them the model's own, the rest of another size and aspect."""
    if rng.random() < 0.67:
        return side, side
    return round(side * rng.uniform(0.85, 1.25)), round(side * rng.uniform(0.85, 1.25))


class BatchMaker:
    """Makes the batch of any step.

    Args:
        seed: of the whole training.
        fonts: file names to print with in place of the training fonts.
        language_model: the kind that reads them.
    """

    def __init__(self, seed: int, fonts: Sequence[str] | None = None, language_model: LanguageModelName = "t5") -> None:
        self.seed = seed
        self.fonts = fonts
        self.templates = Templates.default()
        self.tokenizer = RowTokenizer(language_model)

    def make(self, index: int, shape: BatchShape) -> Batch:
        """Returns the batch of an index, with as many pictures and rows as `shape` says; the same every time."""
        rng = random.Random(f"{self.seed} batch {index}")
        pictured = [self._pictured(shape.families, rng) for _ in range(shape.pictures - shape.pages)]
        scenes = [picture.scene for picture in pictured]
        pages = [sample_page(rng.getrandbits(48), fonts=self.fonts) for _ in range(shape.pages)]
        pictures = [*scenes, *pages]
        sizes = [_sample_size(shape.image_size, rng) for _ in pictures]
        groups = _by_length(asked_rows(pictured, shape.asked, rng), lambda row: _length(row.pair), _ASKED_GROUPS)
        groups.append(scored_rows(self.templates, pictured, shape.scored, rng))
        # Two batches in a row, so that of two processes neither waits for the other's long prompts.
        groups.append(
            compared_rows(self.templates, pictured, 0 if index // 2 % _COMPARE_EVERY else shape.compared, rng)
        )
        labels = [patch_labels(scene, size, shape.grid) for scene, size in zip(pictures, sizes, strict=True)]
        pairs = [rewriting_pair(self.templates, rng) for _ in range(shape.rewritten)]
        pairs += [scene_pair(self.templates, rng) for _ in range(shape.told)]
        read = [read_question(rng) for _ in range(shape.read)]
        pixels = [_pixels(*pair, shape.image_size) for pair in zip(pictures, sizes, strict=True)]
        return Batch(
            pixels=np.array(pixels, np.uint8).reshape(-1, 3, shape.image_size, shape.image_size),
            patches=stacked(labels) if labels else None,
            visual=tuple(self.tokenizer.rows(rows, labels) for rows in groups if rows),
            text=tuple(map(self.tokenizer.text_rows, _by_length(pairs, _length, _TEXT_GROUPS))),
            read=tuple(map(self.tokenizer.read_rows, _by_length(read, lambda row: len(row.text), _TEXT_GROUPS))),
        )

    def _pictured(self, families: Sequence[str], rng: random.Random) -> Pictured:
        """Samples a scene of which one of the families, if any are given, asks something."""
        while True:
            scene = sample_scene(rng.getrandbits(48), fonts=self.fonts)
            found = [fact for fact in facts(scene, rng) if not families or fact.family in families]
            if found:
                return Pictured(scene=scene, facts=found)


def _pixels(scene: Scene, size: Size, side: int) -> NDArray[np.uint8]:
    return np.asarray(picture_at(scene, size, side)).transpose(2, 0, 1)


def _length(pair: TextPair) -> int:
    return len(pair.prompt) + 2 * len(pair.target)


def _by_length(rows: list[Item], length: Callable[[Item], int], groups: int) -> list[list[Item]]:
    """Splits rows into groups of like length, the shorter ones first: padding is computed, too."""
    by_length = sorted(rows, key=length)
    cuts = [len(rows) * i // groups for i in range(groups + 1)]
    return [by_length[start:end] for start, end in pairwise(cuts) if end > start]


_maker: BatchMaker | None = None


def _start_worker(seed: int, fonts: Sequence[str] | None, language_model: LanguageModelName) -> None:
    global _maker
    _maker = BatchMaker(seed, fonts, language_model)


def _make(index: int, shape: BatchShape) -> Batch:
    assert _maker is not None
    return _maker.make(index, shape)


class BatchStream:
    """One training process's batches.

    Args:
        seed: of the whole training.
        shape_of: what a step sees.
        first: index of step 0's batch.
        stride: between the indices of two steps: the number of training processes.
        workers: processes that draw ahead; with none, a batch is made when it is asked for.
        fonts: file names to print with in place of the training fonts.
        language_model: the kind that reads the batches.
    """

    def __init__(
        self,
        seed: int,
        shape_of: Callable[[int], BatchShape],
        *,
        first: int,
        stride: int,
        workers: int,
        fonts: Sequence[str] | None = None,
        language_model: LanguageModelName = "t5",
    ) -> None:
        self.shape_of, self.first, self.stride = shape_of, first, stride
        self.ahead = _AHEAD_PER_WORKER * workers
        self.pending: deque[tuple[int, Future[Batch]]] = deque()
        self.maker = None if workers else BatchMaker(seed, fonts, language_model)
        self.pool = None
        if workers:
            arguments = (seed, fonts, language_model)
            self.pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, arguments)

    def start(self, step: int) -> None:
        """Waits until the workers have drawn a first batch."""
        if self.pool is not None:
            self._order(self.pool, step)
            self.pending[0][1].result()

    def batch(self, step: int) -> Batch:
        """Returns a step's batch, and has the workers draw the next ones."""
        if self.pool is None:
            assert self.maker is not None
            return self.maker.make(self._index(step), self.shape_of(step))
        self._order(self.pool, step)
        return self.pending.popleft()[1].result()

    def _order(self, pool: ProcessPoolExecutor, step: int) -> None:
        if not self.pending or self.pending[0][0] != step:
            self.pending.clear()
        for later in range(step + len(self.pending), step + self.ahead):
            self.pending.append((later, pool.submit(_make, self._index(later), self.shape_of(later))))

    def _index(self, step: int) -> int:
        return self.first + step * self.stride

    def close(self) -> None:
        """Ends the workers."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
