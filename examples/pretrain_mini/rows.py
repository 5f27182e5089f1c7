"""The rows of a training step before they are tokenised: questions, instructions to predict, and comparisons."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pretrain_mini.rewriting import TextPair, as_called, comparison_pair, offered, sample_fact, sample_foreign
from pretrain_mini.roughening import typed
from vlinstruct.instruction.templates import Templates
from vlinstruct.mini import Split
from vlinstruct.mini.phrasings import families
from vlinstruct.mini.questions import Fact, is_label, plural_noun
from vlinstruct.mini.scene import COLOURS, SHAPES, Scene
from vlinstruct.mini.wording import Worded, answer_in, canonical, worded

FOREIGN = "foreign"
"""What stands for a family where an instruction is of none."""
UNANSWERABLE = "unanswerable"
VERDICTS = (*"012345", "yes", "no", "true", "false", "unanswerable", *COLOURS, *SHAPES)
# What is learned last is asked most; families that are not named here weigh 1.
FAMILY_WEIGHTS = {
    "reading": 8.0,
    "number": 12.0,
    "colour": 2.0,
    "shape": 2.0,
    "position": 14.0,
    "count": 5.0,
    "exist": 4.0,
    "written": 5.0,
    "same": 24.0,
    "meme": 3.0,
    "ocr": 1.5,
    "caption": 2.5,
    "description": 2.5,
    "relation": 3.0,
}
_CANONICAL_SHARE, _FOREIGN_SHARE = 0.15, 0.07


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
        fits: of an instruction that is scored by itself, whether it fits the picture: then it should be the likelier.
    """

    picture: int
    scene: Scene
    fact: Fact | None
    qformer_text: str
    pair: TextPair
    family: str | None
    verdict: str | None = None
    fits: bool | None = None


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


def _in_words(fact: Fact, rng: random.Random) -> Worded:
    """Puts a fact into words: mostly as people type, at times canonical ones."""
    slots = offered(fact, rng)
    if rng.random() >= _CANONICAL_SHARE:
        return typed(fact.family, slots, rng)
    form = rng.choice(list(families()[fact.family].canonical))
    return Worded(text=canonical(fact.family, slots, form), form=form)


def asked_rows(pictures: Sequence[Pictured], count: int, rng: random.Random) -> list[Row]:
    """Samples questions, as many about every picture; some are none that a picture of the world answers."""
    rows = []
    for i in range(count):
        at = i % len(pictures)
        if rng.random() < _FOREIGN_SHARE:
            rows.append(_foreign_row(at, pictures[at].scene, rng))
            continue
        fact = as_called(_sample_fact(pictures[at].facts, rng), pictures[at].scene, rng)
        words = _in_words(fact, rng)
        answer = answer_in(words.form, fact.answer)
        rows.append(
            Row(
                picture=at,
                scene=pictures[at].scene,
                fact=fact,
                qformer_text=words.text,
                pair=TextPair(prompt=words.text, target=answer),
                family=fact.family,
                verdict=answer if answer in VERDICTS else None,
            )
        )
    return rows


def _foreign_row(picture: int, scene: Scene, rng: random.Random) -> Row:
    text = sample_foreign(rng)
    return Row(
        picture=picture,
        scene=scene,
        fact=None,
        qformer_text=text,
        pair=TextPair(prompt=text, target=UNANSWERABLE),
        family=FOREIGN,
        verdict=UNANSWERABLE,
    )


@dataclass(frozen=True, kw_only=True)
class ReadQuestion:
    """A question without a picture.

    Args:
        text: as it is typed.
        family: of what it asks, or FOREIGN.
        named: the nouns it is about, the fact's first first.
    """

    text: str
    family: str
    named: tuple[str, ...]


def read_question(rng: random.Random) -> ReadQuestion:
    """Samples a question, or what is none of the world's."""
    if rng.random() < _FOREIGN_SHARE:
        return ReadQuestion(text=sample_foreign(rng), family=FOREIGN, named=())
    fact = sample_fact(rng, "train")
    slots = offered(fact, rng)
    named = tuple(slots[name] for name in ("first", "second") if name in slots) or tuple(
        slots[name] for name in ("thing", "colour") if name in slots
    )
    return ReadQuestion(text=typed(fact.family, slots, rng).text, family=fact.family, named=named)


def scored_rows(templates: Templates, pictures: Sequence[Pictured], count: int, rng: random.Random) -> list[Row]:
    """Samples instructions to be scored by the template of appendix B.2, for each that fits one that does not.

    Of one that fits the Q-Former reads the instruction itself, as it does when it is scored, or nothing, or one that
    does not fit the picture: its text alone must not tell the target, it is to be trusted only where it fits.
    """
    rows = []
    for at in rng.sample(range(len(pictures)), count):
        fact = as_called(_sample_fact(pictures[at].fitting, rng), pictures[at].scene, rng)
        pair = TextPair(prompt=templates.score_prompt(), target=_scored_words(fact, rng))
        rows += [
            _scored_row(at, pictures[at], fact, pair, rng),
            _unlikely_row(at, pictures[at], fact, pair.prompt, rng),
        ]
    return rows


def _scored_words(fact: Fact, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return worded(fact.family, fact.slots, rng).text
    return _in_words(fact, rng).text


def _unlikely_row(at: int, picture: Pictured, fitting: Fact, prompt: str, rng: random.Random) -> Row:
    """Scores what does not fit: mostly of the fitting one's family, so that it is no family that tells them apart."""
    question = mismatched_fact(picture, rng)
    for _ in range(8):
        if question.family == fitting.family:
            break
        question = mismatched_fact(picture, rng)
    text = _scored_words(question, rng) if rng.random() > _FOREIGN_SHARE else sample_foreign(rng)
    asks_here = any(question is other for other in picture.facts)
    return Row(
        picture=at,
        scene=picture.scene,
        fact=question if asks_here else None,
        qformer_text=text,
        pair=TextPair(prompt=prompt, target=text),
        family=None,
        verdict="no",
        fits=False,
    )


def _scored_row(at: int, picture: Pictured, fact: Fact, pair: TextPair, rng: random.Random) -> Row:
    share = rng.random()
    text, question, verdict = pair.target, fact, "yes"
    if share < 0.1:
        return Row(picture=at, scene=picture.scene, fact=None, qformer_text="", pair=pair, family=None)
    if share < 0.4:
        question, verdict = mismatched_fact(picture, rng), "no"
        text = typed(question.family, question.slots, rng).text
    asks_here = question is fact or any(question is other for other in picture.facts)
    return Row(
        picture=at,
        scene=picture.scene,
        fact=question if asks_here else None,
        qformer_text=text,
        pair=pair,
        family=question.family,
        verdict=verdict,
        fits=True if text is pair.target else None,
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
        text = typed(fact.family, fact.slots, rng).text
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
