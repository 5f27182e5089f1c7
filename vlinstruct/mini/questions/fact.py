"""What a question is before it has words, and the nouns that its slots are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vlinstruct.mini.scene import Scene, Thing
from vlinstruct.mini.wording import plural_noun, with_article


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A question about a scene, before it has words.

    Args:
        family: a key of `phrasings.families()`.
        slots: what fills the wording's fields.
        answer: in lower case.
        is_fitting: the question makes sense for this picture: it names nothing that is not there. What is only offered
            to choose from, options and OCR tokens, does not count.
        focus: the things the question is about, in the order it names them.
        counted: the things it is about that it does not name one by one.
        candidates: answers to rank, where the task ranks; the answer is among them.
    """

    family: str
    slots: Mapping[str, str]
    answer: str
    is_fitting: bool = True
    focus: tuple[Thing, ...] = ()
    counted: tuple[Thing, ...] = ()
    candidates: tuple[str, ...] = ()


def plural(noun: str, count: int) -> str:
    """Returns "a red star", "3 red stars".

    >>> plural("cross", 2), plural("orange ring", 1)
    ('2 crosses', 'an orange ring')
    """
    return with_article(noun) if count == 1 else f"{count} {plural_noun(noun)}"


def unique(scene: Scene, attribute: Literal["shape", "colour", "name"]) -> list[Thing]:
    """Returns the things that the attribute alone tells from every other thing."""
    counts = Counter(getattr(thing, attribute) for thing in scene.things)
    return [thing for thing in scene.things if counts[getattr(thing, attribute)] == 1]
