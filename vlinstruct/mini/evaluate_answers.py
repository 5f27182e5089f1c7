"""How well a model answers about pictures that training could not show: fonts, words and wordings of dev or test."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.mini.draw import DEFAULT_SIZE, draw, layout
from vlinstruct.mini.phrasings import TASKS
from vlinstruct.mini.questions import Question, ask, facts
from vlinstruct.mini.scene import Scene
from vlinstruct.mini.shares import Share, share
from vlinstruct.mini.split import Split
from vlinstruct.mini.world import sample_scene
from vlinstruct.settings import GenerationSettings

_BATCH = 10
_GENERATION = GenerationSettings(max_new_tokens=48)
# Heights of capitals as fractions of the picture's height.
HEIGHT_BANDS = ((0.0, 1 / 12), (1 / 12, 1 / 10), (1 / 10, 1 / 8), (1 / 8, 1 / 6), (1 / 6, 1 / 4), (1 / 4, 1 / 3))
_REQUIRED_BAND = (1 / 6, 1 / 3)
_READING_FAMILIES = ("reading", "number")


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
    for found in by_family.values():
        yield ask(rng.choice(found), rng, split, poor_share)


def answer_all(
    model: InstructBlipBackend, scenes: Sequence[Scene], split: Split, poor_share: float = 0.0
) -> list[Answered]:
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
        percept = model.encode([draw(scene) for scene in chunk])
        rows = [(i, one) for i, scene in enumerate(chunk) for one in _questions(scene, start + i, split, poor_share)]
        texts = [question.instruction for _, question in rows]
        answers = model.generate(percept.select([i for i, _ in rows]), texts, texts, _GENERATION)
        answered += [Answered(scene=chunk[i], question=q, answer=a) for (i, q), a in zip(rows, answers, strict=True)]
    return answered


def _text_height(scene: Scene) -> float:
    """Returns the height of the capitals as drawn, as a fraction of the picture's."""
    return layout(scene.prints[0], DEFAULT_SIZE).capital / DEFAULT_SIZE[1]


def _band_name(low: float, high: float) -> str:
    """Returns "letters 1/12 to 1/10 high"."""
    return f"letters {f'1/{1 / low:.0f}' if low else '0'} to 1/{1 / high:.0f} high"


def right_in_band(answered: Sequence[Answered], families: Sequence[str], low: float, high: float) -> Share:
    """Returns the right answers of some families on texts of capitals `low` to `high` of the picture's height."""
    asked = (one for one in answered if one.question.family in families)
    inside = (one.is_right for one in asked if low <= _text_height(one.scene) < high)
    return share(f"{families[0]}, {_band_name(low, high)}", inside)


def reading_shares(answered: Sequence[Answered]) -> list[Share]:
    """Returns exact readings by height of the letters, and the share of characters read in their place."""
    characters = (
        place < len(one.answer) and one.answer[place] == wanted
        for one in answered
        if one.question.family in _READING_FAMILIES
        for place, wanted in enumerate(one.question.answer)
    )
    bands = [right_in_band(answered, _READING_FAMILIES, low, high) for low, high in (*HEIGHT_BANDS, _REQUIRED_BAND)]
    written = right_in_band(answered, ("written",), *_REQUIRED_BAND)
    return [*bands, written, share("characters read in their place, all heights", characters)]


def family_shares(answered: Sequence[Answered]) -> list[Share]:
    """Returns the right answers of every family, task by task."""
    by_family = defaultdict(list)
    for one in answered:
        by_family[one.question.family].append(one.is_right)
    listed = ((task, family) for task, families in TASKS.items() for family in families)
    return [share(f"{task}: {family}", by_family[family]) for task, family in listed]
