"""Descriptions of a scene in two styles."""

from __future__ import annotations

import random
from collections import Counter

from vlinstruct.mini.questions.fact import Fact, plural
from vlinstruct.mini.scene import Scene, Thing

_LOW, _HIGH = 0.36, 0.64
_MOST_DESCRIBED = 2


def caption(scene: Scene) -> str:
    """Describes a scene in one phrase: its things from left to right, its text, its background."""
    counts = Counter(thing.name for thing in sorted(scene.things, key=lambda thing: thing.x))
    parts = [plural(name, count) for name, count in counts.items()]
    for text in scene.prints:
        kind = "number" if text.text.isdigit() else "word"
        parts.append(f"the {kind} {text.text.lower()} in {text.colour}")
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{listed} on {plural(f'{scene.background} background', 1)}"


def place(thing: Thing) -> str:
    """Returns where in the picture a thing is, in one word; left and right go before top and bottom."""
    if not _LOW <= thing.x <= _HIGH:
        return "left" if thing.x < _LOW else "right"
    if not _LOW <= thing.y <= _HIGH:
        return "top" if thing.y < _LOW else "bottom"
    return "middle"


def description(scene: Scene) -> str:
    """Describes a scene as a list: its background, its two largest things from left to right with places, its text."""
    largest = sorted(scene.things, key=lambda thing: -thing.size)[:_MOST_DESCRIBED]
    things = [f"{thing.name} {place(thing)}" for thing in sorted(largest, key=lambda thing: thing.x)]
    return ", ".join([f"{scene.background} background", *things, *(text.text.lower() for text in scene.prints)])


def captions(scene: Scene, rng: random.Random) -> list[Fact]:
    """Asks for both descriptions of a scene that is not empty."""
    if not scene.things and not scene.prints:
        return []
    return [
        Fact(family="caption", slots={}, answer=caption(scene)),
        Fact(family="description", slots={}, answer=description(scene)),
    ]
