"""Training batches: pictures, what is asked about them, and text-only rows; a pure function of seed and step.

Legend: P pictures, R rows (questions), G patches per side, T prompt tokens, S target tokens. Token arrays are padded
with 0 on the right; IGNORED marks what a loss leaves out.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from vlinstruct.instruction.templates import Templates
from vlinstruct.mini.draw import Size, draw
from vlinstruct.mini.labels import PatchLabels, character_class, patch_labels
from vlinstruct.mini.questions import Fact, ask, facts
from vlinstruct.mini.rewriting import TextPair, comparison_pair, rewriting_pair, sample_fact
from vlinstruct.mini.scene import COLOURS, SHAPES, Scene
from vlinstruct.mini.tokenizers import QFORMER_SPECIALS, language_tokenizer, qformer_tokenizer
from vlinstruct.mini.wording import canonical, clean
from vlinstruct.mini.words import MAX_LENGTH
from vlinstruct.mini.world import sample_page, sample_scene

Ids = NDArray[np.int64]

IGNORED = -100
FOCUS_SLOTS = 2
VERDICTS = ("0", "1", "2", "3", "4", "5", "yes", "no", *COLOURS, *SHAPES)
FAMILY_WEIGHTS = {
    "colour": 4.0,
    "reading": 3.0,
    "number": 3.0,
    "position": 3.0,
    "count": 2.0,
    "exist": 1.5,
    "options": 1.5,
    "shape": 1.5,
    "caption": 1.0,
    "written": 1.0,
}
_EOS = 1


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """How many of what a step sees.

    Args:
        pictures: P, scenes first, then pages.
        pages: pictures full of words that nothing is asked about; for the dense labels.
        asked: questions to answer.
        scored: instructions to predict from the picture (template B.2).
        rewritten: text-only rewritings (template B.1).
        compared: comparisons of two instructions, in every fourth batch: their prompts are long.
        image_size: side of the picture in pixels.
        grid: G.
    """

    pictures: int
    pages: int = 0
    asked: int = 0
    scored: int = 0
    rewritten: int = 0
    compared: int = 0
    image_size: int = 112
    grid: int = 8


# The vision tower learns slowest and its dense labels need no questions: at first it learns alone, at three times the
# speed.
SEEING = BatchShape(pictures=12, pages=7)
ANSWERING = BatchShape(pictures=12, pages=1, asked=22, scored=3, rewritten=6, compared=3)
_COMPARE_EVERY = 4


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows that go through the language model together.

    Args:
        picture: (R,) which picture a row is about.
        qformer_ids: (R, T) what the Q-Former reads.
        prompt_ids: (R, T) what the language model reads, end token included.
        target_ids: (R, S) what it should write, end token included.
        characters: (R, 8) classes of the printed characters, IGNORED where reading is not asked.
        cells: (R, 2, 2) row and column of the patch at the centre of each thing in focus.
        verdict: (R,) position of the answer in VERDICTS.
    """

    picture: Ids
    qformer_ids: Ids
    prompt_ids: Ids
    target_ids: Ids
    characters: Ids
    cells: Ids
    verdict: Ids


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's data.

    Args:
        pixels: (P, 3, image_size, image_size), 0 to 255.
        patches: classes of the patches, each (P, G, G).
        visual: questions, scored instructions and comparisons: rows of like length together, to save padding; empty
            when nothing is asked.
        rewriting_prompt_ids: (R, T), text only.
        rewriting_target_ids: (R, S).
    """

    pixels: NDArray[np.uint8]
    patches: PatchLabels
    visual: tuple[Rows, ...]
    rewriting_prompt_ids: Ids
    rewriting_target_ids: Ids


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row before it is tokenised."""

    picture: int
    scene: Scene
    fact: Fact
    qformer_text: str
    pair: TextPair


def padded(sequences: Sequence[Sequence[int]]) -> Ids:
    """Stacks sequences of different lengths, zeros on the right; at least one column."""
    array = np.zeros((len(sequences), max(map(len, sequences), default=1)), np.int64)
    for i, sequence in enumerate(sequences):
        array[i, : len(sequence)] = sequence
    return array


def picture_at(scene: Scene, size: Size, side: int) -> Image.Image:
    """Draws a scene at `size` and squeezes it to a square as the model's preprocessor does."""
    image = draw(scene, size)
    return image if size == (side, side) else image.resize((side, side), Image.Resampling.BICUBIC)


def _sample_size(side: int, rng: random.Random) -> Size:
    """Draws a picture size: half of them the model's own, half of another size and aspect."""
    if rng.random() < 0.5:
        return side, side
    width = round(side * rng.uniform(1.0, 1.5))
    return width, round(width * rng.uniform(0.7, 1.05))


def _draw_fact(found: Sequence[Fact], rng: random.Random) -> Fact:
    families = sorted({fact.family for fact in found})
    family = rng.choices(families, [FAMILY_WEIGHTS[family] for family in families])[0]
    return rng.choice([fact for fact in found if fact.family == family])


class BatchMaker:
    """Makes the batch of any step.

    Args:
        seed: of the whole training.
        fonts: file names to print with in place of the training fonts.
    """

    def __init__(self, seed: int, fonts: Sequence[str] | None = None) -> None:
        self.seed = seed
        self.fonts = fonts
        self.templates = Templates.default()
        self.language = _literal(language_tokenizer())
        self.qformer = _literal(qformer_tokenizer())
        self.cls_id, self.sep_id = QFORMER_SPECIALS.index("[CLS]"), QFORMER_SPECIALS.index("[SEP]")

    def make(self, index: int, shape: BatchShape) -> Batch:
        """Returns the batch of an index, with as many pictures and rows as `shape` says; the same every time."""
        rng = random.Random(f"{self.seed} batch {index}")
        num_scenes = shape.pictures - shape.pages
        scenes = [sample_scene(rng.getrandbits(48), fonts=self.fonts) for _ in range(num_scenes)]
        pages = [sample_page(rng.getrandbits(48), fonts=self.fonts) for _ in range(shape.pages)]
        pictures = [*scenes, *pages]
        sizes = [_sample_size(shape.image_size, rng) for _ in pictures]
        known = [facts(scene, rng) for scene in scenes]
        rewritings = [rewriting_pair(self.templates, rng) for _ in range(shape.rewritten)]
        short, long = _by_length(self._asked(scenes, known, shape.asked, rng))
        scored = self._scored(scenes, known, shape.scored, rng)
        compared = self._compared(scenes, known, 0 if index % _COMPARE_EVERY else shape.compared, rng)
        return Batch(
            pixels=np.stack([_pixels(*drawn, shape.image_size) for drawn in zip(pictures, sizes, strict=True)]),
            patches=_stacked([patch_labels(*drawn, shape.grid) for drawn in zip(pictures, sizes, strict=True)]),
            visual=tuple(self._tokenised(rows, shape.grid) for rows in (short, long + scored, compared) if rows),
            rewriting_prompt_ids=padded([self._text_ids(pair.prompt) for pair in rewritings]),
            rewriting_target_ids=padded([self._text_ids(pair.target) for pair in rewritings]),
        )

    def _asked(self, scenes: list[Scene], known: list[list[Fact]], count: int, rng: random.Random) -> list[Row]:
        rows = []
        for i in range(count):
            at = i % len(scenes)
            question = ask(_draw_fact(known[at], rng), rng)
            text = question.instruction
            pair = TextPair(prompt=text, target=question.answer)
            rows.append(Row(picture=at, scene=scenes[at], fact=question.fact, qformer_text=text, pair=pair))
        return rows

    def _scored(self, scenes: list[Scene], known: list[list[Fact]], count: int, rng: random.Random) -> list[Row]:
        rows = []
        for at in rng.sample(range(len(scenes)), count):
            fact = _draw_fact([fact for fact in known[at] if fact.is_fitting], rng)
            target = ask(fact, rng, poor_share=0.15).instruction
            text = self._qformer_text_of_scoring(target, known[at], rng)
            pair = TextPair(prompt=self.templates.score_prompt(), target=target)
            rows.append(Row(picture=at, scene=scenes[at], fact=fact, qformer_text=text, pair=pair))
        return rows

    def _qformer_text_of_scoring(self, target: str, known: list[Fact], rng: random.Random) -> str:
        """Returns the target, nothing, or an instruction that does not fit the picture.

        The Q-Former's text alone must not tell the target: it is right only where it fits the picture.
        """
        draw = rng.random()
        if draw < 0.45:
            return target
        if draw < 0.55:
            return ""
        fitting = {canonical(fact.family, fact.slots) for fact in known if fact.is_fitting}
        while True:
            other = sample_fact(rng, "train")
            if canonical(other.family, other.slots) not in fitting:
                return clean(other.family, other.slots, rng)

    def _compared(self, scenes: list[Scene], known: list[list[Fact]], count: int, rng: random.Random) -> list[Row]:
        rows = []
        for at in rng.sample(range(len(scenes)), count):
            fitting = [fact for fact in known[at] if fact.is_fitting]
            pair = comparison_pair(self.templates, fitting, rng)
            text = clean(fitting[0].family, fitting[0].slots, rng)
            rows.append(Row(picture=at, scene=scenes[at], fact=fitting[0], qformer_text=text, pair=pair))
        return rows

    def _text_ids(self, text: str) -> list[int]:
        return [*self.language.encode(text, add_special_tokens=False).ids, _EOS]

    def _qformer_ids(self, text: str) -> list[int]:
        return [self.cls_id, *self.qformer.encode(text, add_special_tokens=False).ids, self.sep_id]

    def _tokenised(self, rows: list[Row], grid: int) -> Rows:
        return Rows(
            picture=np.array([row.picture for row in rows]),
            qformer_ids=padded([self._qformer_ids(row.qformer_text) for row in rows]),
            prompt_ids=padded([self._text_ids(row.pair.prompt) for row in rows]),
            target_ids=padded([self._text_ids(row.pair.target) for row in rows]),
            characters=np.array([_characters(row) for row in rows]),
            cells=np.array([_cells(row, grid) for row in rows]),
            verdict=np.array([_verdict(row) for row in rows]),
        )


def _literal(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.encode_special_tokens = True
    return tokenizer


def _pixels(scene: Scene, size: Size, side: int) -> NDArray[np.uint8]:
    return np.asarray(picture_at(scene, size, side)).transpose(2, 0, 1)


def _by_length(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Splits rows into the two thirds that are shorter and the rest."""
    by_length = sorted(rows, key=lambda row: len(row.pair.prompt) + 2 * len(row.pair.target))
    cut = 2 * len(rows) // 3
    return by_length[:cut], by_length[cut:]


def _stacked(labels: list[PatchLabels]) -> PatchLabels:
    return PatchLabels(
        character=np.stack([one.character for one in labels]),
        index=np.stack([one.index for one in labels]),
        shape=np.stack([one.shape for one in labels]),
        colour=np.stack([one.colour for one in labels]),
    )


def _characters(row: Row) -> list[int]:
    if row.fact.family not in ("reading", "number", "written") or not row.scene.prints:
        return [IGNORED] * MAX_LENGTH
    classes = [character_class(character) for character in row.scene.prints[0].text]
    return classes + [0] * (MAX_LENGTH - len(classes))


def _cells(row: Row, grid: int) -> list[list[int]]:
    cells = [[min(grid - 1, int(place * grid)) for place in (thing.y, thing.x)] for thing in row.fact.focus]
    return cells + [[IGNORED, IGNORED]] * (FOCUS_SLOTS - len(cells))


def _verdict(row: Row) -> int:
    return VERDICTS.index(row.pair.target) if row.pair.target in VERDICTS else IGNORED
