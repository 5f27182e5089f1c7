"""Facts that offer answers to choose from, allow for none, or go on from an earlier answer."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

from vlinstruct.instruction.templates import fill
from vlinstruct.mini.questions.fact import Fact, unique
from vlinstruct.mini.questions.things import colours, counts, shapes
from vlinstruct.mini.scene import COLOURS, SHAPES, Scene

# Things of everyday life and the colour everybody knows them by; none is a word of signs, which tokenizers spell.
NOUNS_BY_COLOUR: dict[str, tuple[str, ...]] = {
    "red": ("blood", "strawberry", "ruby"),
    "green": ("grass", "spinach", "cucumber"),
    "blue": ("sky", "sapphire", "denim"),
    "yellow": ("canary", "sunflower", "mustard"),
    "orange": ("pumpkin", "apricot", "tangerine"),
    "purple": ("eggplant", "lavender", "amethyst"),
    "pink": ("flamingo", "piglet", "bubblegum"),
    "brown": ("chocolate", "acorn", "mud"),
    "black": ("coal", "raven", "tar"),
    "white": ("chalk", "cotton", "flour"),
    "grey": ("elephant", "concrete", "dolphin"),
}
NUM_DIALOGUE_CANDIDATES = 16

_NOUNS = {"colour": "colour of the {thing}", "shape": "shape of the {colour} object", "count": "number of {things}"}
_CLAUSES = {
    "colour": "what colour is the {thing}",
    "shape": "what shape is the {colour} object",
    "count": "how many {things} are there",
}
_ANSWERS: dict[str, Sequence[str]] = {"colour": tuple(COLOURS), "shape": SHAPES, "count": tuple("0123456")}


def _asking(family: str, slots: Mapping[str, str]) -> dict[str, str]:
    """Returns what a fact asks for as a noun and as a clause: slots of a question that offers or allows for more.

    >>> _asking("colour", {"thing": "star"})
    {'asked': 'colour of the star', 'question': 'what colour is the star'}
    """
    return {"asked": fill(_NOUNS[family], **slots), "question": fill(_CLAUSES[family], **slots)}


def _sample_options(answer: str, others: Iterable[str], rng: random.Random) -> tuple[str, ...]:
    """Samples two or three options, the answer in any place."""
    wrong = rng.sample([other for other in others if other != answer], rng.choice((1, 2, 2)))
    return tuple(rng.sample([answer, *wrong], len(wrong) + 1))


def _lettered(options: Sequence[str]) -> str:
    """Returns the options with their letters.

    >>> _lettered(("red", "blue"))
    '(a) red (b) blue'
    """
    return " ".join(f"({letter}) {option}" for letter, option in zip("abc", options, strict=False))


def options(scene: Scene, rng: random.Random) -> list[Fact]:
    """Asks for one colour, shape or number with options of its kind."""
    # A kind first, then one of its facts: a scene has more colours to ask for than shapes or numbers.
    kinds = [[fact for fact in ask(scene, rng) if fact.is_fitting] for ask in (colours, shapes, counts)]
    fact = rng.choice(rng.choice([kind for kind in kinds if kind]))
    offered = _sample_options(fact.answer, _ANSWERS[fact.family], rng)
    slots = {**_asking(fact.family, fact.slots), "options": _lettered(offered)}
    return [
        Fact(
            family="options",
            slots=slots,
            answer=fact.answer,
            focus=fact.focus,
            counted=fact.counted,
            candidates=offered,
        )
    ]


def choices(scene: Scene, rng: random.Random) -> list[Fact]:
    """Asks which noun has the colour of something in the picture: to be answered with the picture and knowledge."""
    fact = rng.choice(colours(scene, rng))
    nouns = {colour: rng.choice(words) for colour, words in NOUNS_BY_COLOUR.items()}
    answer = nouns[fact.answer]
    offered = _sample_options(answer, nouns.values(), rng)
    slots = {**fact.slots, "options": _lettered(offered)}
    return [Fact(family="choice", slots=slots, answer=answer, focus=fact.focus, candidates=offered)]


def _absent_thing(scene: Scene, rng: random.Random) -> str:
    """Samples a shape that is not there, or the text where nothing is written."""
    present = {thing.shape for thing in scene.things}
    shape = rng.choice([shape for shape in SHAPES if shape not in present])
    return shape if scene.prints else rng.choice((shape, "text"))


def _absent_colour(scene: Scene, rng: random.Random) -> str:
    """Samples a colour that no thing has, often one that the background or the text has."""
    painted = {thing.colour for thing in scene.things}
    near = sorted({scene.background, *(text.colour for text in scene.prints)} - painted)
    return rng.choice([*near, rng.choice([colour for colour in COLOURS if colour not in painted])])


def _absent(scene: Scene, rng: random.Random) -> dict[str, str]:
    """Asks for the colour or the shape of something that is not there."""
    slots = {"thing": _absent_thing(scene, rng), "colour": _absent_colour(scene, rng)}
    return _asking(rng.choice(("colour", "shape")), slots)


def answerables(scene: Scene, rng: random.Random) -> list[Fact]:
    """Asks for a colour or shape once of something that is not there and, where possible, once of something that is."""
    facts = [Fact(family="answerable", slots=_absent(scene, rng), answer="unanswerable", is_fitting=False)]
    visible = [fact for fact in (*colours(scene, rng), *shapes(scene, rng)) if fact.slots.get("thing") != "background"]
    if visible:
        fact = rng.choice(visible)
        slots = _asking(fact.family, fact.slots)
        facts.append(Fact(family="answerable", slots=slots, answer=fact.answer, focus=fact.focus))
    return facts


def _dialogue_candidates(rng: random.Random) -> tuple[str, ...]:
    """Samples all colours and some answers of other kinds, in any order."""
    others = ["yes", "no", rng.choice(_ANSWERS["count"])]
    others += rng.sample(SHAPES, NUM_DIALOGUE_CANDIDATES - len(COLOURS) - len(others))
    return tuple(rng.sample([*COLOURS, *others], NUM_DIALOGUE_CANDIDATES))


def dialogues(scene: Scene, rng: random.Random) -> list[Fact]:
    """Asks for the colour of a thing after the answer that it is there."""
    return [
        Fact(
            family="dialogue",
            slots={"thing": thing.shape},
            answer=thing.colour,
            focus=(thing,),
            candidates=_dialogue_candidates(rng),
        )
        for thing in unique(scene, "shape")
    ]
