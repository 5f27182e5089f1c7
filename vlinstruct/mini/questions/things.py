"""Facts about things: what they look like, how many there are, whether they are there, how they stand to each other."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import combinations

from vlinstruct.mini.questions.fact import Fact, unique
from vlinstruct.mini.scene import COLOURS, SHAPES, Scene, Thing
from vlinstruct.mini.wording import plural_noun

# Of 3,000 scenes, 324 pairs have the same colour and about 510 have not: keeping so many of these balances yes and no.
_DIFFERENT_KEPT = 0.5
RELATIONS: dict[str, Callable[[Thing, Thing], float]] = {
    "to the left of": lambda first, second: second.x - first.x,
    "to the right of": lambda first, second: first.x - second.x,
    "above": lambda first, second: second.y - first.y,
    "below": lambda first, second: first.y - second.y,
}
_MIN_DISTANCE = 0.15  # what is nearer is hardly left or right of anything
# Nearer than this to the wrong side, a thing might be taken for a second answer.
_CLEAR_DISTANCE = 0.05


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
    """Samples the name of something that is not there but shares a word with something that is, where possible."""
    present = {thing.name for thing in scene.things}
    base = rng.choice(sorted(present)) if present else f"{rng.choice(tuple(COLOURS))} {rng.choice(SHAPES)}"
    colour, shape = base.split()
    near = [f"{other} {shape}" for other in COLOURS] + [f"{colour} {other}" for other in SHAPES]
    return rng.choice([name for name in near if name not in present])


def existence(scene: Scene, rng: random.Random) -> list[Fact]:
    """Asks whether something is there: once for what is not and once for what is."""
    absent = Fact(family="exist", slots={"thing": _absent_name(scene, rng)}, answer="no", is_fitting=False)
    if not scene.things:
        return [absent]
    thing = rng.choice(scene.things)
    return [absent, Fact(family="exist", slots={"thing": thing.name}, answer="yes", focus=(thing,))]


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


def positions(scene: Scene, rng: random.Random) -> list[Fact]:
    """States where things stand to each other; the relation is sampled, so that half of the statements are true."""
    facts = []
    named = unique(scene, "name")
    for first in named:
        for second in (thing for thing in named if thing is not first):
            relation = rng.choice(tuple(RELATIONS))  # not the true one: it would always be answered with true
            distance = RELATIONS[relation](first, second)
            slots = {"first": first.name, "relation": relation, "second": second.name}
            answer = "true" if distance > 0 else "false"
            if abs(distance) > _MIN_DISTANCE:
                facts.append(Fact(family="position", slots=slots, answer=answer, focus=(first, second)))
    return facts


def _only_one(scene: Scene, relation: str, reference: Thing) -> Thing | None:
    """Returns the one thing that stands in the relation to the reference, when no other is near to doing so."""
    others = [thing for thing in scene.things if thing is not reference]
    distances = [RELATIONS[relation](thing, reference) for thing in others]
    candidates = [thing for thing, distance in zip(others, distances, strict=True) if distance >= -_CLEAR_DISTANCE]
    return candidates[0] if len(candidates) == 1 and max(distances) >= _MIN_DISTANCE else None


def related_shapes(scene: Scene, rng: random.Random) -> list[Fact]:
    """Asks for the shape of the only thing that stands in a relation to another."""
    return [
        Fact(
            family="relation",
            slots={"relation": relation, "thing": reference.name},
            answer=target.shape,
            focus=(reference, target),
        )
        for reference in unique(scene, "name")
        for relation in RELATIONS
        if (target := _only_one(scene, relation, reference)) is not None
    ]
