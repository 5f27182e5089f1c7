"""What can be asked about a scene, and the right answers.

A `Fact` is a question before it has words: its family, what fills the family's slots, and the answer. `phrasings.py`
puts it into words.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vlinstruct.mini.phrasings import Split
from vlinstruct.mini.scene import COLOURS, SHAPES, Scene, Thing
from vlinstruct.mini.wording import clean, poor
from vlinstruct.mini.words import sample_text

RELATIONS: dict[str, Callable[[Thing, Thing], float]] = {
    "to the left of": lambda first, second: second.x - first.x,
    "to the right of": lambda first, second: first.x - second.x,
    "above": lambda first, second: second.y - first.y,
    "below": lambda first, second: first.y - second.y,
}
_LEAST_DISTANCE = 0.15


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A question about a scene, before it has words.

    Args:
        family: a key of `phrasings.FAMILIES`.
        slots: what fills the wording's fields.
        answer: in lower case.
        is_fitting: the question makes sense for this picture: it names nothing that is not there.
        focus: the things the question is about, in the order it names them.
    """

    family: str
    slots: Mapping[str, str]
    answer: str
    is_fitting: bool = True
    focus: tuple[Thing, ...] = ()


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


def plural(noun: str, count: int) -> str:
    """Returns "a red star", "3 red stars".

    >>> plural("cross", 2), plural("orange ring", 1)
    ('2 crosses', 'an orange ring')
    """
    if count == 1:
        return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"
    return f"{count} {plural_noun(noun)}"


def plural_noun(noun: str) -> str:
    """Returns the noun's plural.

    >>> plural_noun("cross")
    'crosses'
    """
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def _unique(scene: Scene, attribute: str) -> list[Thing]:
    counts = Counter(getattr(thing, attribute) for thing in scene.things)
    return [thing for thing in scene.things if counts[getattr(thing, attribute)] == 1]


def _colours(scene: Scene, rng: random.Random) -> list[Fact]:
    facts = [
        Fact(family="colour", slots={"thing": thing.shape}, answer=thing.colour, focus=(thing,))
        for thing in _unique(scene, "shape")
    ]
    facts += [Fact(family="colour", slots={"thing": "text"}, answer=text.colour) for text in scene.prints]
    return [*facts, Fact(family="colour", slots={"thing": "background"}, answer=scene.background)]


def _options(scene: Scene, rng: random.Random) -> list[Fact]:
    fact = rng.choice(_colours(scene, rng))
    others = rng.sample([colour for colour in COLOURS if colour != fact.answer], rng.choice((1, 2, 2)))
    colours = rng.sample([fact.answer, *others], len(others) + 1)
    options = " ".join(f"({letter}) {colour}" for letter, colour in zip("abc", colours, strict=False))
    return [Fact(family="options", slots={**fact.slots, "options": options}, answer=fact.answer, focus=fact.focus)]


def _shapes(scene: Scene, rng: random.Random) -> list[Fact]:
    return [
        Fact(family="shape", slots={"colour": thing.colour}, answer=thing.shape, focus=(thing,))
        for thing in _unique(scene, "colour")
    ]


def _counts(scene: Scene, rng: random.Random) -> list[Fact]:
    counts = Counter(thing.shape for thing in scene.things)
    facts = [
        Fact(family="count", slots={"things": plural_noun(shape)}, answer=str(count)) for shape, count in counts.items()
    ]
    if scene.things:
        facts.append(Fact(family="count", slots={"things": "objects"}, answer=str(len(scene.things))))
        absent = rng.choice([shape for shape in SHAPES if shape not in counts])
        facts.append(Fact(family="count", slots={"things": plural_noun(absent)}, answer="0", is_fitting=False))
    return facts


def _positions(scene: Scene, rng: random.Random) -> list[Fact]:
    facts = []
    named = _unique(scene, "name")
    for first in named:
        for second in (thing for thing in named if thing is not first):
            relation = rng.choice(tuple(RELATIONS))
            distance = RELATIONS[relation](first, second)
            slots = {"first": first.name, "relation": relation, "second": second.name}
            answer = "yes" if distance > 0 else "no"
            if abs(distance) > _LEAST_DISTANCE:
                facts.append(Fact(family="position", slots=slots, answer=answer, focus=(first, second)))
    return facts


def _absent_name(scene: Scene, rng: random.Random) -> str:
    """Draws the name of something that is not there but shares a word with something that is, where possible."""
    present = {thing.name for thing in scene.things}
    base = rng.choice(sorted(present)) if present else f"{rng.choice(tuple(COLOURS))} {rng.choice(SHAPES)}"
    colour, shape = base.split()
    near = [f"{other} {shape}" for other in COLOURS] + [f"{colour} {other}" for other in SHAPES]
    return rng.choice([name for name in near if name not in present])


def _existence(scene: Scene, rng: random.Random) -> list[Fact]:
    absent = Fact(family="exist", slots={"thing": plural(_absent_name(scene, rng), 1)}, answer="no", is_fitting=False)
    if not scene.things:
        return [absent]
    thing = rng.choice(scene.things)
    return [absent, Fact(family="exist", slots={"thing": plural(thing.name, 1)}, answer="yes", focus=(thing,))]


def _readings(scene: Scene, rng: random.Random) -> list[Fact]:
    return [
        Fact(family="number" if text.text.isdigit() else "reading", slots={}, answer=text.text.lower())
        for text in scene.prints
    ]


def _near_miss(text: str, rng: random.Random) -> str:
    """Changes one character."""
    at = rng.randrange(len(text))
    alphabet = "0123456789" if text.isdigit() else "abcdefghijklmnopqrstuvwxyz"
    return text[:at] + rng.choice([c for c in alphabet if c != text[at]]) + text[at + 1 :]


def _quotes(scene: Scene, rng: random.Random) -> list[Fact]:
    facts = []
    for text in scene.prints:
        word = text.text.lower()
        other = rng.choice((_near_miss(word, rng), sample_text(rng, "train")))
        facts.append(Fact(family="written", slots={"quote": word}, answer="yes"))
        answer = "yes" if other == word else "no"
        facts.append(Fact(family="written", slots={"quote": other}, answer=answer, is_fitting=False))
    return facts


def caption(scene: Scene) -> str:
    """Describes a scene in one phrase: its things from left to right, its text, its background."""
    counts = Counter(thing.name for thing in sorted(scene.things, key=lambda thing: thing.x))
    parts = [plural(name, count) for name, count in counts.items()]
    for text in scene.prints:
        kind = "number" if text.text.isdigit() else "word"
        parts.append(f"the {kind} {text.text.lower()} in {text.colour}")
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{listed} on {plural(f'{scene.background} background', 1)}"


def _captions(scene: Scene, rng: random.Random) -> list[Fact]:
    return [Fact(family="caption", slots={}, answer=caption(scene))] if scene.things or scene.prints else []


_ASKERS = {
    "colour": _colours,
    "shape": _shapes,
    "count": _counts,
    "position": _positions,
    "exist": _existence,
    "reading": _readings,
    "written": _quotes,
    "options": _options,
    "caption": _captions,
}


def facts(scene: Scene, rng: random.Random) -> list[Fact]:
    """Returns every question about a scene; `rng` draws distractors and relations."""
    return [fact for ask in _ASKERS.values() for fact in ask(scene, rng)]


def ask(fact: Fact, rng: random.Random, split: Split = "train", poor_share: float = 0.3) -> Question:
    """Puts a fact into words, poor ones in a share of `poor_share`."""
    word = poor if rng.random() < poor_share else clean
    return Question(fact=fact, instruction=word(fact.family, fact.slots, rng, split))


def questions(scene: Scene, rng: random.Random, split: Split = "train") -> list[Question]:
    """Returns every question about a scene in words drawn by `rng`."""
    return [ask(fact, rng, split) for fact in facts(scene, rng)]
