"""Facts about how things stand to each other."""

from __future__ import annotations

import random
from collections.abc import Callable

from vlinstruct.mini.questions.fact import Fact, unique
from vlinstruct.mini.scene import Scene, Thing

RELATIONS: dict[str, Callable[[Thing, Thing], float]] = {
    "to the left of": lambda first, second: second.x - first.x,
    "to the right of": lambda first, second: first.x - second.x,
    "above": lambda first, second: second.y - first.y,
    "below": lambda first, second: first.y - second.y,
}
_LEAST_DISTANCE = 0.15
# Nearer than this to the wrong side, a thing might be taken for a second answer.
_CLEAR_DISTANCE = 0.05


def positions(scene: Scene, rng: random.Random) -> list[Fact]:
    """States where things stand to each other; the relation is drawn, so that half of the statements are true."""
    facts = []
    named = unique(scene, "name")
    for first in named:
        for second in (thing for thing in named if thing is not first):
            relation = rng.choice(tuple(RELATIONS))
            distance = RELATIONS[relation](first, second)
            slots = {"first": first.name, "relation": relation, "second": second.name}
            answer = "true" if distance > 0 else "false"
            if abs(distance) > _LEAST_DISTANCE:
                facts.append(Fact(family="position", slots=slots, answer=answer, focus=(first, second)))
    return facts


def _only_one(scene: Scene, relation: str, reference: Thing) -> Thing | None:
    """Returns the one thing that stands in the relation to the reference, when no other is near to doing so."""
    others = [thing for thing in scene.things if thing is not reference]
    distances = [RELATIONS[relation](thing, reference) for thing in others]
    found = [thing for thing, distance in zip(others, distances, strict=True) if distance >= -_CLEAR_DISTANCE]
    return found[0] if len(found) == 1 and max(distances) >= _LEAST_DISTANCE else None


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
