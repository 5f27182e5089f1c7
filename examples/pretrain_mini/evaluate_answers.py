"""How well a model answers about pictures that training could not show: fonts, words and wordings of dev or test.

And how well it reads, against the height of the letters: in scenes without things, asked in canonical words.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

from pretrain_mini.report import ReadingPoint, Share, share
from vlinstruct.mini import Split
from vlinstruct.mini.draw import DEFAULT_SIZE, draw, layout
from vlinstruct.mini.phrasings import TASKS
from vlinstruct.mini.questions import Question, ask, facts, is_label
from vlinstruct.mini.scene import Scene
from vlinstruct.mini.wording import canonical
from vlinstruct.mini.world import sample_scene
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import good

_BATCH = 10
_GENERATION = GenerationSettings(max_new_tokens=48)
# Heights of capitals as fractions of the picture's height.
HEIGHT_BANDS = ((0.0, 1 / 12), (1 / 12, 1 / 10), (1 / 10, 1 / 8), (1 / 8, 1 / 6), (1 / 6, 1 / 4), (1 / 4, 1 / 3))
_REQUIRED_BAND = (1 / 6, 1 / 3)
_READING_FAMILIES = ("reading", "number")
# Fractions of the picture's height, from the least to the most that is asked of mini.
HEIGHTS = (1 / 14, 1 / 12, 1 / 10, 1 / 8, 1 / 7, 1 / 6, 1 / 5, 1 / 4, 1 / 3)
_LEAST_OF_HEIGHT = 0.93
_READING_BATCH = 25
_READING = GenerationSettings(max_new_tokens=16)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A question, its scene and what the model said."""

    scene: Scene
    question: Question
    answer: str

    @property
    def is_right(self) -> bool:
        """True when the answer is the expected one, letter for letter."""
        return self.answer == self.question.answer


def held_out_scenes(count: int, split: Split) -> list[Scene]:
    """Returns scenes of a part's own fonts and words."""
    return [sample_scene(seed, split=split) for seed in range(count)]


def _questions(scene: Scene, seed: int, split: Split, poor_share: float) -> Iterator[Question]:
    """Yields one question of every family that a scene allows, in the part's wordings."""
    rng = random.Random(f"evaluation {seed}")
    by_family = defaultdict(list)
    for fact in facts(scene, rng):
        by_family[fact.family].append(fact)
    for of_family in by_family.values():
        yield ask(rng.choice(of_family), rng, split, poor_share)


def answer_all(model: Model, scenes: Sequence[Scene], split: Split, poor_share: float = 0.0) -> list[Answered]:
    """Asks one question of every family about every scene.

    Args:
        model: is asked, greedily; sees every picture once.
        scenes: are drawn at the default size.
        split: whose wordings the questions have.
        poor_share: share of poorly worded questions.
    """
    answered = []
    for start in range(0, len(scenes), _BATCH):
        chunk = scenes[start : start + _BATCH]
        seen = [good(outcome) for outcome in model.see_each([draw(scene) for scene in chunk])]
        rows = [(i, q) for i, scene in enumerate(chunk) for q in _questions(scene, start + i, split, poor_share)]
        texts = [question.instruction for _, question in rows]
        outcomes = model.ask_each([seen[i] for i, _ in rows], texts, generation=_GENERATION)
        answers = [good(outcome).text for outcome in outcomes]
        answered += [Answered(scene=chunk[i], question=q, answer=a) for (i, q), a in zip(rows, answers, strict=True)]
    return answered


def text_height(scene: Scene) -> float:
    """Returns the height of the capitals as drawn, as a fraction of the picture's."""
    return layout(scene.prints[0], DEFAULT_SIZE).capital / DEFAULT_SIZE[1]


def _band_name(low: float, high: float) -> str:
    """Returns "letters 1/12 to 1/10 high"."""
    return f"letters {f'1/{1 / low:.0f}' if low else '0'} to 1/{1 / high:.0f} high"


def right_in_band(answered: Sequence[Answered], families: Sequence[str], low: float, high: float) -> Share:
    """Returns the right answers of some families on texts of capitals `low` to `high` of the picture's height."""
    of_families = (item for item in answered if item.question.family in families)
    inside = (item.is_right for item in of_families if low <= text_height(item.scene) < high)
    return share(f"{families[0]}, {_band_name(low, high)}", inside)


def reading_shares(answered: Sequence[Answered]) -> list[Share]:
    """Returns exact readings by height of the letters, and the share of characters read in their place."""
    characters = (
        place < len(item.answer) and item.answer[place] == character
        for item in answered
        if item.question.family in _READING_FAMILIES
        for place, character in enumerate(item.question.answer)
    )
    bands = [right_in_band(answered, _READING_FAMILIES, low, high) for low, high in (*HEIGHT_BANDS, _REQUIRED_BAND)]
    written = right_in_band(answered, ("written",), *_REQUIRED_BAND)
    return [*bands, written, share("characters read in their place, all heights", characters)]


def family_shares(answered: Sequence[Answered]) -> list[Share]:
    """Returns the right answers of every family, task by task."""
    by_family = defaultdict(list)
    for item in answered:
        by_family[item.question.family].append(item.is_right)
    rows = ((task, family) for task, families in TASKS.items() for family in families)
    return [share(f"{task}: {family}", by_family[family]) for task, family in rows]


def scenes_of_height(
    height: float, split: Split, fonts: Sequence[str] | None = None, *, first: int = 0
) -> Iterator[Scene]:
    """Yields scenes without things whose text is of a height; texts too wide for it are left out.

    Args:
        height: of the capitals, as a fraction of the picture's.
        split: whose fonts and words are used.
        fonts: file names to print with in place of the part's own.
        first: seed of the first scene.
    """
    for seed in count(first):
        scene = sample_scene(seed, split=split, fonts=fonts)
        if scene.things or not scene.prints or is_label(scene.prints[0].text):
            continue
        text = replace(scene.prints[0], height=height, y=min(max(scene.prints[0].y, 0.1 + height), 0.9 - height))
        if layout(text, DEFAULT_SIZE).capital >= _LEAST_OF_HEIGHT * height * DEFAULT_SIZE[1]:
            yield replace(scene, prints=(text,))


def reads(model: Model, scenes: Sequence[Scene]) -> list[bool]:
    """Asks what is written in canonical words; True where it is read exactly."""
    texts = [scene.prints[0].text.lower() for scene in scenes]
    questions = [canonical("number" if text.isdigit() else "reading", {}) for text in texts]
    seen = [good(outcome) for outcome in model.see_each([draw(scene) for scene in scenes])]
    outcomes = model.ask_each(seen, questions, generation=_READING)
    return [good(outcome).text == text for outcome, text in zip(outcomes, texts, strict=True)]


def reading_curve(model: Model, items: int, split: Split) -> list[ReadingPoint]:
    """Asks for `items` texts of every height."""
    points = []
    for height in HEIGHTS:
        scenes = list(islice(scenes_of_height(height, split), items))
        points.append(ReadingPoint(height=height, read=_read_share(f"letters 1/{1 / height:.0f} high", model, scenes)))
    return points


def _read_share(name: str, model: Model, scenes: Sequence[Scene]) -> Share:
    starts = range(0, len(scenes), _READING_BATCH)
    return share(name, (right for i in starts for right in reads(model, scenes[i : i + _READING_BATCH])))


def read_in_canonical_words(model: Model, scenes: Sequence[Scene]) -> Share:
    """Asks all scenes whose text is 1/6 to 1/3 of the picture high, whatever else they show."""
    printed = [scene for scene in scenes if scene.prints and not is_label(scene.prints[0].text)]
    heights = [layout(scene.prints[0], DEFAULT_SIZE).capital / DEFAULT_SIZE[1] for scene in printed]
    inside = [scene for scene, height in zip(printed, heights, strict=True) if 1 / 6 <= height < 1 / 3]
    return _read_share("reading in canonical words, letters 1/6 to 1/3 high", model, inside)
