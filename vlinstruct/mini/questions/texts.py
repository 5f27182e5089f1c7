"""Facts about the printed text."""

from __future__ import annotations

import random

from vlinstruct.mini.questions.fact import Fact
from vlinstruct.mini.scene import COLOURS, SHAPES, Scene
from vlinstruct.mini.words import sample_text, split_of

_NEAR_MISS_SHARE = 0.25


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
    """Draws another text of the same part, so that being new does not give the answer away."""
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
