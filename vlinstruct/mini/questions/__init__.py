"""What can be asked about a scene, and the right answers.

A `Fact` is a question before it has words: its family, what fills the family's slots, and the answer. `wording.py`
puts it into words.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from vlinstruct.mini import Split
from vlinstruct.mini.questions import choices, texts, things
from vlinstruct.mini.questions.choices import NOUNS_BY_COLOUR
from vlinstruct.mini.questions.fact import Fact, plural
from vlinstruct.mini.questions.texts import caption, description, is_label
from vlinstruct.mini.questions.things import RELATIONS
from vlinstruct.mini.scene import Scene
from vlinstruct.mini.wording import clean, plural_noun, poor

__all__ = [
    "NOUNS_BY_COLOUR",
    "RELATIONS",
    "Fact",
    "Question",
    "ask",
    "caption",
    "description",
    "facts",
    "is_label",
    "plural",
    "plural_noun",
    "questions",
]

# In this order: all of them draw from one `rng`, so another order would ask other questions about every scene.
_ASKERS = (
    texts.captions,
    things.colours,
    things.shapes,
    things.counts,
    things.existence,
    things.same_colours,
    things.positions,
    things.related_shapes,
    texts.readings,
    texts.quotes,
    texts.ocr_readings,
    texts.memes,
    choices.options,
    choices.choices,
    choices.answerables,
    choices.dialogues,
)


@dataclass(frozen=True, kw_only=True)
class Question:
    """A fact in words.

    Args:
        fact: what is asked.
        instruction: how it is asked.
    """

    fact: Fact
    instruction: str

    @property
    def family(self) -> str:
        """The fact's family."""
        return self.fact.family

    @property
    def answer(self) -> str:
        """The fact's answer."""
        return self.fact.answer


def facts(scene: Scene, rng: random.Random) -> list[Fact]:
    """Returns every question about a scene; `rng` samples distractors and relations."""
    return [fact for make in _ASKERS for fact in make(scene, rng)]


def ask(fact: Fact, rng: random.Random, split: Split = "train", poor_share: float = 0.3) -> Question:
    """Puts a fact into words, poor ones in a share of `poor_share`."""
    word = poor if rng.random() < poor_share else clean
    return Question(fact=fact, instruction=word(fact.family, fact.slots, rng, split))


def questions(scene: Scene, rng: random.Random, split: Split = "train") -> list[Question]:
    """Returns every question about a scene in words sampled by `rng`."""
    return [ask(fact, rng, split) for fact in facts(scene, rng)]
