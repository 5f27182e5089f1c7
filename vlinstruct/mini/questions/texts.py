"""Facts about the printed text, and descriptions of all that a scene shows, in two styles."""

from __future__ import annotations

import random
from collections import Counter

from vlinstruct.mini.questions.fact import Fact, plural
from vlinstruct.mini.scene import COLOURS, SHAPES, Scene, Thing
from vlinstruct.mini.words import sample_text, split_of

# One character off: only who reads every letter says no.
_NEAR_MISS_SHARE = 0.25
# Where the middle of the picture begins and ends, as fractions of it.
_LOW, _HIGH = 0.36, 0.64
_MAX_DESCRIBED_THINGS = 2


def is_label(text: str) -> bool:
    """True for a colour's or shape's name: such a text may or may not fit what the picture shows.

    >>> is_label("Red"), is_label("exit")
    (True, False)
    """
    return text.lower() in COLOURS or text.lower() in SHAPES


def _words(scene: Scene) -> list[str]:
    """Returns the texts to read, in lower case: no labels, which stand in the pictures of every part alike."""
    return [text.text.lower() for text in scene.prints if not is_label(text.text)]


def readings(scene: Scene, rng: random.Random) -> list[Fact]:
    """Asks what is written, of a number which."""
    return [Fact(family="number" if word.isdigit() else "reading", slots={}, answer=word) for word in _words(scene)]


def _near_miss(text: str, rng: random.Random) -> str:
    """Changes one character."""
    at = rng.randrange(len(text))
    alphabet = "0123456789" if text.isdigit() else "abcdefghijklmnopqrstuvwxyz"
    return text[:at] + rng.choice([c for c in alphabet if c != text[at]]) + text[at + 1 :]


def _other_word(text: str, rng: random.Random) -> str:
    """Samples another text of the same part, so that being new does not give the answer away."""
    other = sample_text(rng, split_of(text))
    return other if other != text else _other_word(text, rng)


def quotes(scene: Scene, rng: random.Random) -> list[Fact]:
    """Asks whether a text is written: once for the one that is and once for another."""
    facts = []
    for word in _words(scene):
        other = _near_miss(word, rng) if rng.random() < _NEAR_MISS_SHARE else _other_word(word, rng)
        facts.append(Fact(family="written", slots={"quote": word}, answer="yes"))
        facts.append(Fact(family="written", slots={"quote": other}, answer="no", is_fitting=False))
    return facts


def ocr_readings(scene: Scene, rng: random.Random) -> list[Fact]:
    """Asks what is written and offers it among one or two other texts, as an OCR system would."""
    facts = []
    for word in _words(scene):
        tokens = [word, *(_other_word(word, rng) for _ in range(rng.randint(1, 2)))]
        rng.shuffle(tokens)
        facts.append(Fact(family="ocr", slots={"tokens": ", ".join(tokens)}, answer=word))
    return facts


def memes(scene: Scene, rng: random.Random) -> list[Fact]:
    """Asks whether a label is true of something in the picture."""
    true_words = {word for thing in scene.things for word in (thing.colour, thing.shape)}
    labels = [text.text.lower() for text in scene.prints if scene.things and is_label(text.text)]
    return [
        Fact(
            family="meme",
            slots={"quote": label},
            answer="yes" if label in true_words else "no",
            counted=scene.things,
            candidates=("yes", "no"),
        )
        for label in labels
    ]


def caption(scene: Scene) -> str:
    """Describes a scene in one phrase: its things from left to right, its text, its background."""
    counts = Counter(thing.name for thing in sorted(scene.things, key=lambda thing: thing.x))
    parts = [plural(name, count) for name, count in counts.items()]
    for text in scene.prints:
        kind = "number" if text.text.isdigit() else "word"
        parts.append(f"the {kind} {text.text.lower()} in {text.colour}")
    phrase = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{phrase} on {plural(f'{scene.background} background', 1)}"


def place(thing: Thing) -> str:
    """Returns where in the picture a thing is, in one word; left and right go before top and bottom."""
    if not _LOW <= thing.x <= _HIGH:
        return "left" if thing.x < _LOW else "right"
    if not _LOW <= thing.y <= _HIGH:
        return "top" if thing.y < _LOW else "bottom"
    return "middle"


def description(scene: Scene) -> str:
    """Describes a scene as a list: its background, its two largest things from left to right with places, its text."""
    largest = sorted(scene.things, key=lambda thing: -thing.size)[:_MAX_DESCRIBED_THINGS]
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
