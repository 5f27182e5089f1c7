"""Training batches: pictures, what is asked about them, and text-only rows; a pure function of seed and step.

Legend: P pictures, R rows (questions), G patches per side, T prompt tokens, S target tokens. Token arrays are padded
with 0 on the right; IGNORED marks what a loss leaves out.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from vlinstruct.instruction.templates import Templates
from vlinstruct.mini.comparing import GUIDED_LAYERS, Looks, comparing_looks
from vlinstruct.mini.copying import Ids, Sources, name_sources, prompt_sources, query_sources, run_of
from vlinstruct.mini.draw import Size, draw
from vlinstruct.mini.guidance import FOCUS_QUERIES, NUM_QUERY_TOKENS, VERDICT_QUERY
from vlinstruct.mini.labels import PatchLabels, patch_labels
from vlinstruct.mini.questions import facts
from vlinstruct.mini.rewriting import TextPair, rewriting_pair
from vlinstruct.mini.row_labels import IGNORED, RowLabels, row_labels
from vlinstruct.mini.rows import Pictured, Row, asked_rows, compared_rows, scored_rows
from vlinstruct.mini.scene import COLOUR_NAMES, SHAPES, Scene
from vlinstruct.mini.tokenizers import QFORMER_SPECIALS, language_tokenizer, qformer_tokenizer
from vlinstruct.mini.world import sample_page, sample_scene

Labels = TypeVar("Labels", PatchLabels, RowLabels)

VERDICT_FAMILIES = ("position", "exist", "count", "same", "written", "meme")
SPELLING_FAMILIES = ("reading", "number", "caption", "description")
_EOS = 1
_COMPARE_EVERY = 2
_NO_TOKEN = -1
# What follows an instruction in the comparison's template; always as long.
_SCORE = "Score: 0.0000."
_AFTER_FIRST_DIGIT = len("0.0000.")


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """How many of what a step sees.

    Args:
        pictures: P, scenes first, then pages.
        pages: pictures full of words that nothing is asked about; for the dense labels.
        asked: questions to answer.
        scored: instructions to predict from the picture (template B.2).
        rewritten: text-only rewritings (template B.1).
        compared: comparisons of two instructions, in every other step: their prompts are long.
        image_size: side of the picture in pixels.
        grid: G.
    """

    pictures: int
    pages: int = 0
    asked: int = 0
    scored: int = 0
    rewritten: int = 0
    compared: int = 0
    image_size: int = 120
    grid: int = 10


# The dense labels need no questions: at first the vision tower learns alone, from more pictures a second.
SEEING = BatchShape(pictures=12, pages=7)
ANSWERING = BatchShape(pictures=12, pages=4, asked=26, scored=8, rewritten=16, compared=8)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows that go through the language model together.

    Args:
        picture: (R,) which picture a row is about.
        qformer_ids: (R, T) what the Q-Former reads.
        prompt_ids: (R, T) what the language model reads, end token included.
        target_ids: (R, S) what it should write, end token included.
        sources: (R, S, Q + T), where the decoder should look for what it copies (`copying.py`).
        better: (R, Q + T), 1 where a comparison's better instruction stands, 0 where the worse one does, else IGNORED.
        looks: (R, 2, Q + T, Q + T), where compared scores should look (`comparing.py`); None where nothing is compared.
        labels: what the auxiliary losses want, stacked.
    """

    picture: Ids
    qformer_ids: Ids
    prompt_ids: Ids
    target_ids: Ids
    sources: Sources
    better: Ids
    looks: Looks | None
    labels: RowLabels


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
        rewriting_sources: (R, S, T), where the decoder should look for what it copies.
    """

    pixels: NDArray[np.uint8]
    patches: PatchLabels
    visual: tuple[Rows, ...]
    rewriting_prompt_ids: Ids
    rewriting_target_ids: Ids
    rewriting_sources: Sources


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
    """Draws a picture size: two thirds of them the model's own, the rest of another size and aspect."""
    if rng.random() < 0.67:
        return side, side
    return round(side * rng.uniform(0.85, 1.25)), round(side * rng.uniform(0.85, 1.25))


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
        self.names = {name: self._text_ids(name)[0] for name in (*COLOUR_NAMES, *SHAPES)}
        self.score_length = len(self._text_ids(_SCORE)) - 1
        self.cls_id, self.sep_id = QFORMER_SPECIALS.index("[CLS]"), QFORMER_SPECIALS.index("[SEP]")

    def make(self, index: int, shape: BatchShape) -> Batch:
        """Returns the batch of an index, with as many pictures and rows as `shape` says; the same every time."""
        rng = random.Random(f"{self.seed} batch {index}")
        num_scenes = shape.pictures - shape.pages
        scenes = [sample_scene(rng.getrandbits(48), fonts=self.fonts) for _ in range(num_scenes)]
        pages = [sample_page(rng.getrandbits(48), fonts=self.fonts) for _ in range(shape.pages)]
        pictures = [*scenes, *pages]
        sizes = [_sample_size(shape.image_size, rng) for _ in pictures]
        known = [Pictured(scene=scene, facts=facts(scene, rng)) for scene in scenes]
        short, long = _by_length(asked_rows(known, shape.asked, rng))
        scored = scored_rows(self.templates, known, shape.scored, rng)
        # Two batches in a row, so that of two processes neither waits for the other's long prompts.
        compared = compared_rows(self.templates, known, 0 if index // 2 % _COMPARE_EVERY else shape.compared, rng)
        labels = [patch_labels(scene, size, shape.grid) for scene, size in zip(pictures, sizes, strict=True)]
        prompt_ids, target_ids = self._pair_ids([rewriting_pair(self.templates, rng) for _ in range(shape.rewritten)])
        return Batch(
            pixels=np.stack([_pixels(*drawn, shape.image_size) for drawn in zip(pictures, sizes, strict=True)]),
            patches=stacked(labels),
            visual=tuple(self._tokenised(rows, labels) for rows in (short, long + scored, compared) if rows),
            rewriting_prompt_ids=prompt_ids,
            rewriting_target_ids=target_ids,
            rewriting_sources=_sources(prompt_ids, target_ids),
        )

    def _text_ids(self, text: str) -> list[int]:
        return [*self.language.encode(text, add_special_tokens=False).ids, _EOS]

    def _qformer_ids(self, text: str) -> list[int]:
        return [self.cls_id, *self.qformer.encode(text, add_special_tokens=False).ids, self.sep_id]

    def _pair_ids(self, pairs: Sequence[TextPair]) -> tuple[Ids, Ids]:
        prompts, targets = (
            [self._text_ids(pair.prompt) for pair in pairs],
            [self._text_ids(pair.target) for pair in pairs],
        )
        return padded(prompts), padded(targets)

    def _tokenised(self, rows: list[Row], patches: list[PatchLabels]) -> Rows:
        prompt_ids, target_ids = self._pair_ids([row.pair for row in rows])
        from_queries = np.stack([self._query_sources(*pair) for pair in zip(rows, target_ids, strict=True)])
        copied_ids = np.stack([self._copied(*pair) for pair in zip(rows, prompt_ids, strict=True)])
        from_prompt = _sources(copied_ids, target_ids) * (from_queries.sum(axis=-1, keepdims=True) == 0)
        for i, row in enumerate(rows):
            self._read_relation(row, prompt_ids[i], from_queries[i], from_prompt[i])
        return Rows(
            picture=np.array([row.picture for row in rows]),
            qformer_ids=padded([self._qformer_ids(row.qformer_text) for row in rows]),
            prompt_ids=prompt_ids,
            target_ids=target_ids,
            sources=np.concatenate([from_queries, from_prompt], axis=-1),
            better=np.stack([self._better(*pair) for pair in zip(rows, prompt_ids, strict=True)]),
            looks=self._looks(rows, prompt_ids),
            labels=stacked([row_labels(row, patches[row.picture]) for row in rows]),
        )

    def _read_relation(self, row: Row, prompt_ids: Ids, from_queries: Sources, from_prompt: Sources) -> None:
        """Lets a verdict on a relation look as much at its word as at the query that knows how things stand."""
        if row.fact is not None and row.fact.family == "position" and row.verdict:
            word = row.fact.slots["relation"].removeprefix("to the ").removesuffix(" of")
            from_prompt += from_queries.sum(axis=-1, keepdims=True) * self._run(word, prompt_ids) / 2
            from_queries /= 2

    def _copied(self, row: Row, prompt_ids: Ids) -> Ids:
        """Returns (T,): the part of the prompt that the target is made from; elsewhere what is no token."""
        if not row.pair.source:
            return prompt_ids
        return np.where(self._run(row.pair.source, prompt_ids), prompt_ids, _NO_TOKEN)

    def _run(self, text: str, prompt_ids: Ids) -> NDArray[np.bool_]:
        """Returns (T,): True where a text first stands in a prompt."""
        return run_of(np.array(self._text_ids(text)[:-1]), prompt_ids)

    def _better(self, row: Row, prompt_ids: Ids) -> Ids:
        """Returns (Q + T,): which of two compared instructions, its score included, a token belongs to."""
        better = np.full(NUM_QUERY_TOKENS + len(prompt_ids), IGNORED)
        for label, span in enumerate(self._spans(row, prompt_ids)):
            better[span] = label
        return better

    def _spans(self, row: Row, prompt_ids: Ids) -> list[slice]:
        """Returns where the worse and the better of two compared instructions stand, their scores included."""
        if row.pair.source == row.pair.rejected:
            return []
        runs = [np.nonzero(self._run(text, prompt_ids))[0] for text in (row.pair.rejected, row.pair.source)]
        return [slice(NUM_QUERY_TOKENS + run[0], NUM_QUERY_TOKENS + run[-1] + 1 + self.score_length) for run in runs]

    def _looks(self, rows: list[Row], prompt_ids: Ids) -> Looks | None:
        if not rows[0].pair.source:
            return None
        length = NUM_QUERY_TOKENS + prompt_ids.shape[1]
        looks = np.zeros((len(rows), len(GUIDED_LAYERS), length, length), np.float32)
        for i, row in enumerate(rows):
            spans = self._spans(row, prompt_ids[i])
            if spans:
                looks[i] = comparing_looks(length, spans, [span.stop - _AFTER_FIRST_DIGIT for span in spans])
        return looks

    def _query_sources(self, row: Row, target_ids: Ids) -> Sources:
        """Returns (S, Q): the queries that hold what is written, characters or the names of the things in focus."""
        if row.fact is None or row.pair.source:
            return np.zeros((len(target_ids), NUM_QUERY_TOKENS), np.float32)
        if row.fact.family in SPELLING_FAMILIES and row.scene.prints:
            spelt = np.array(self._text_ids(row.scene.prints[0].text.lower())[:-1])
            return query_sources(target_ids, spelt, NUM_QUERY_TOKENS)
        if row.fact.family in VERDICT_FAMILIES and row.verdict:
            sources = np.zeros((len(target_ids), NUM_QUERY_TOKENS), np.float32)
            sources[target_ids > _EOS, VERDICT_QUERY] = 1
            return sources
        named = [[self.names[name] for name in (thing.shape, thing.colour)] for thing in row.fact.focus]
        return name_sources(target_ids, dict(zip(FOCUS_QUERIES, named, strict=False)), NUM_QUERY_TOKENS)


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


def _sources(prompt_ids: Ids, target_ids: Ids) -> Sources:
    """Returns (R, S, T): where each row's target is copied from its prompt; padding and end tokens are no copies."""
    pairs = zip(prompt_ids, target_ids, strict=True)
    found = [prompt_sources(target, prompt) * (target > _EOS)[:, None] for prompt, target in pairs]
    return np.stack(found) if found else np.zeros((0, 1, 1), np.float32)


def stacked(labels: Sequence[Labels]) -> Labels:
    """Stacks dataclasses of arrays, field by field, along a new first axis."""
    kind = type(labels[0])
    return kind(**{field.name: np.stack([getattr(one, field.name) for one in labels]) for field in fields(kind)})
