"""The rows of a training step before they are tokenised: questions, instructions to predict, and comparisons."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pretrain_mini.rewriting import TextPair, comparison_pair, sample_fact
from vlinstruct.instruction.templates import Templates
from vlinstruct.mini import Split
from vlinstruct.mini.questions import Fact, ask, is_label, plural_noun
from vlinstruct.mini.scene import COLOURS, SHAPES, Scene
from vlinstruct.mini.wording import clean

VERDICTS = (*"012345", "yes", "no", "true", "false", "unanswerable", *COLOURS, *SHAPES)
# What is learned last is asked most; families that are not named here weigh 1.
FAMILY_WEIGHTS = {
    "reading": 5.0,
    "number": 3.0,
    "position": 3.0,
    "count": 6.0,
    "exist": 2.0,
    "written": 4.0,
    "same": 8.0,
    "caption": 3.0,
    "description": 3.0,
    "relation": 1.5,
    "dialogue": 0.5,
    "choice": 0.5,
    "options": 0.7,
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row through the Q-Former and the language model.

    Args:
        picture: which of the step's pictures it is about.
        scene: what that picture shows.
        fact: what the Q-Former's text asks about the picture, where it asks anything.
        qformer_text: what the Q-Former reads.
        pair: what the language model reads and writes.
        family: of what the Q-Former's text asks, about whichever picture.
        verdict: the answer, where it is one of VERDICTS; of a scored instruction, whether the Q-Former's text fits.
    """

    picture: int
    scene: Scene
    fact: Fact | None
    qformer_text: str
    pair: TextPair
    family: str | None
    verdict: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pictured:
    """A picture's scene and everything that can be asked about it."""

    scene: Scene
    facts: Sequence[Fact]

    @property
    def fitting(self) -> list[Fact]:
        """The facts that name nothing absent."""
        return [fact for fact in self.facts if fact.is_fitting]


def _sample_fact(facts: Sequence[Fact], rng: random.Random) -> Fact:
    families = sorted({fact.family for fact in facts})
    family = rng.choices(families, [FAMILY_WEIGHTS.get(family, 1.0) for family in families])[0]
    return rng.choice([fact for fact in facts if fact.family == family])


def asked_rows(pictures: Sequence[Pictured], count: int, rng: random.Random) -> list[Row]:
    """Samples questions, as many about every picture."""
    rows = []
    for i in range(count):
        at = i % len(pictures)
        question = ask(_sample_fact(pictures[at].facts, rng), rng)
        text, answer = question.instruction, question.answer
        pair = TextPair(prompt=text, target=answer)
        verdict = answer if answer in VERDICTS else None
        rows.append(
            Row(
                picture=at,
                scene=pictures[at].scene,
                fact=question.fact,
                qformer_text=text,
                pair=pair,
                family=question.family,
                verdict=verdict,
            )
        )
    return rows


def scored_rows(templates: Templates, pictures: Sequence[Pictured], count: int, rng: random.Random) -> list[Row]:
    """Samples fitting instructions to be predicted from the picture, in the template of appendix B.2.

    The Q-Former reads the instruction itself, nothing, or one that does not fit the picture: its text alone must not
    tell the target, it is to be trusted only where it fits the picture.
    """
    rows = []
    for at in rng.sample(range(len(pictures)), count):
        fact = _sample_fact(pictures[at].fitting, rng)
        target = ask(fact, rng, poor_share=0.15).instruction
        pair = TextPair(prompt=templates.score_prompt(), target=target)
        rows.append(_scored_row(at, pictures[at], fact, pair, rng))
    return rows


def _scored_row(at: int, picture: Pictured, fact: Fact, pair: TextPair, rng: random.Random) -> Row:
    share = rng.random()
    text, question, verdict = pair.target, fact, "yes"
    if share < 0.1:
        return Row(picture=at, scene=picture.scene, fact=None, qformer_text="", pair=pair, family=None)
    if share < 0.55:
        question, verdict = mismatched_fact(picture, rng), "no"
        text = clean(question.family, question.slots, rng)
    asks_here = any(question is fact for fact in picture.facts)
    return Row(
        picture=at,
        scene=picture.scene,
        fact=question if asks_here else None,
        qformer_text=text,
        pair=pair,
        family=question.family,
        verdict=verdict,
    )


def mismatched_fact(picture: Pictured, rng: random.Random, split: Split = "train") -> Fact:
    """Samples a question that does not fit: about what is not there, or about what another picture shows."""
    absent = [fact for fact in picture.facts if not fact.is_fitting]
    if absent and rng.random() < 0.5:
        return _sample_fact(absent, rng)
    while True:
        other = sample_fact(rng, split)
        if not names_only_what_is_there(other, picture.scene):
            return other


def compared_rows(templates: Templates, pictures: Sequence[Pictured], count: int, rng: random.Random) -> list[Row]:
    """Samples in-context comparisons of two scored instructions."""
    rows = []
    for at in rng.sample(range(len(pictures)), count):
        fact = rng.choice(pictures[at].fitting)
        pair = comparison_pair(templates, pictures[at].fitting, rng)
        text = clean(fact.family, fact.slots, rng)
        scene = pictures[at].scene
        rows.append(Row(picture=at, scene=scene, fact=fact, qformer_text=text, pair=pair, family=fact.family))
    return rows


_SINGULAR = {plural_noun(shape): shape for shape in SHAPES}
# What is offered to choose from, and how things stand to each other, need not be there.
_OFFERED = ("options", "tokens", "relation", "quote")


def names_only_what_is_there(fact: Fact, scene: Scene) -> bool:
    """True when every thing and text that the fact names is in the scene.

    A count of nothing and a question for what is missing name what is not there, whatever their answers.
    """
    if not all(_is_there(value, scene) for name, value in fact.slots.items() if name not in _OFFERED):
        return False
    printed = [text.text.lower() for text in scene.prints]
    return {
        "reading": any(not text.isdigit() for text in printed),
        "number": any(map(str.isdigit, printed)),
        "written": fact.slots.get("quote") in printed,
        "meme": fact.slots.get("quote") in printed and any(map(is_label, printed)),
        "ocr": any(text in fact.slots.get("tokens", "").split(", ") for text in printed),
    }.get(fact.family, True)


def _is_there(named: str, scene: Scene) -> bool:
    """True when a noun such as "a red star", "circles", "colour of the text" names something in the scene."""
    words = [_SINGULAR.get(word, word) for word in named.split()]
    if "text" in words:
        return bool(scene.prints)
    if "background" in words:
        return True
    colours = [word for word in words if word in COLOURS]
    shapes = [word for word in words if word in SHAPES]
    return any(
        all(thing.colour == colour for colour in colours) and all(thing.shape == shape for shape in shapes)
        for thing in scene.things
    )
