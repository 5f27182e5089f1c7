"""Facts about what things look like, how many there are, and whether they are there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations

from vlinstruct.mini.questions.fact import Fact, plural, plural_noun, unique
from vlinstruct.mini.scene import COLOURS, SHAPES, Scene, Thing

# Of 3,000 scenes, 324 pairs have the same colour and about 510 have not: keeping so many of these balances yes and no.
_DIFFERENT_KEPT = 0.5


def colours(scene: Scene, rng: random.Random) -> list[Fact]:
    """Asks for the colour of each thing that its shape tells apart, of the text and of the background."""
    facts = [
        Fact(family="colour", slots={"thing": thing.shape}, answer=thing.colour, focus=(thing,))
        for thing in unique(scene, "shape")
    ]
    facts += [Fact(family="colour", slots={"thing": "text"}, answer=text.colour) for text in scene.prints]
    return [*facts, Fact(family="colour", slots={"thing": "background"}, answer=scene.background)]


def shapes(scene: Scene, rng: random.Random) -> list[Fact]:
    """Asks for the shape of each thing that its colour tells apart."""
    return [
        Fact(family="shape", slots={"colour": thing.colour}, answer=thing.shape, focus=(thing,))
        for thing in unique(scene, "colour")
    ]


def _count(noun: str, counted: Sequence[Thing]) -> Fact:
    slots = {"things": plural_noun(noun)}
    return Fact(family="count", slots=slots, answer=str(len(counted)), is_fitting=bool(counted), counted=tuple(counted))


def counts(scene: Scene, rng: random.Random) -> list[Fact]:
    """Asks for the number of each shape, of all objects, and of a shape that is not there."""
    if not scene.things:
        return []
    shapes = list(dict.fromkeys(thing.shape for thing in scene.things))
    facts = [_count(shape, [thing for thing in scene.things if thing.shape == shape]) for shape in shapes]
    absent = rng.choice([shape for shape in SHAPES if shape not in shapes])
    return [*facts, _count("object", scene.things), _count(absent, [])]


def _absent_name(scene: Scene, rng: random.Random) -> str:
    """Draws the name of something that is not there but shares a word with something that is, where possible."""
    present = {thing.name for thing in scene.things}
    base = rng.choice(sorted(present)) if present else f"{rng.choice(tuple(COLOURS))} {rng.choice(SHAPES)}"
    colour, shape = base.split()
    near = [f"{other} {shape}" for other in COLOURS] + [f"{colour} {other}" for other in SHAPES]
    return rng.choice([name for name in near if name not in present])


def existence(scene: Scene, rng: random.Random) -> list[Fact]:
    """Asks whether something is there: once for what is not and once for what is."""
    absent = Fact(family="exist", slots={"thing": plural(_absent_name(scene, rng), 1)}, answer="no", is_fitting=False)
    if not scene.things:
        return [absent]
    thing = rng.choice(scene.things)
    return [absent, Fact(family="exist", slots={"thing": plural(thing.name, 1)}, answer="yes", focus=(thing,))]


def same_colours(scene: Scene, rng: random.Random) -> list[Fact]:
    """Asks whether two things have the same colour, about as often of two that have."""
    facts = []
    for pair in combinations(unique(scene, "shape"), 2):
        first, second = rng.sample(pair, 2)
        is_same = first.colour == second.colour
        if is_same or rng.random() < _DIFFERENT_KEPT:
            slots = {"first": first.shape, "second": second.shape}
            answer = "yes" if is_same else "no"
            facts.append(Fact(family="same", slots=slots, answer=answer, focus=(first, second)))
    return facts
