"""Puts what is asked into words of a family: the canonical instruction, a good one, or a poor one.

Slots are filled last, so that no style touches them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from vlinstruct.instruction.templates import fill
from vlinstruct.mini.phrasings import CLOSINGS, FAMILIES, MISSPELLINGS, OPENINGS, STYLES, Split, Style


def canonical(family: str, slots: Mapping[str, str]) -> str:
    """Returns the family's best instruction.

    >>> canonical("colour", {"thing": "circle"})
    'What colour is the circle?'
    """
    return fill(FAMILIES[family].canonical, **slots)


def _good_wording(family: str, rng: random.Random, split: Split) -> str:
    return rng.choice((FAMILIES[family].canonical, *FAMILIES[family].paraphrases.of(split)))


def clean(family: str, slots: Mapping[str, str], rng: random.Random, split: Split = "train") -> str:
    """Draws the canonical instruction or a paraphrase."""
    return fill(_good_wording(family, rng, split), **slots)


def _polite(wording: str, rng: random.Random, split: Split) -> str:
    opening = rng.choice(OPENINGS.of(split))
    if opening.endswith((",", "but")):
        wording = wording[0].lower() + wording[1:]
    parts = [opening, wording, rng.choice(CLOSINGS.of(split))]
    drop = rng.choice((0, 2, None))
    return " ".join(part for i, part in enumerate(parts) if i != drop)


def _misspelt(wording: str, rng: random.Random, split: Split) -> str:
    """Misspells up to three words; slots, in braces, are never touched."""
    words = wording.split(" ")
    known = [i for i, word in enumerate(words) if word.strip('?.,:"').lower() in MISSPELLINGS]
    for i in rng.sample(known, min(len(known), rng.randint(1, 3))):
        bare = words[i].strip('?.,:"')
        wrong = rng.choice(MISSPELLINGS[bare.lower()].of(split))
        words[i] = words[i].replace(bare, wrong.capitalize() if bare[0].isupper() else wrong)
    return _sloppy(" ".join(words), rng, split) if rng.random() < 0.5 else " ".join(words)


def _sloppy(wording: str, rng: random.Random, split: Split) -> str:
    """Small first letter, no end mark, sometimes a doubled one."""
    body = wording.rstrip("?.:")
    return body[0].lower() + body[1:] + rng.choice(("", "", "??", " ?", "!!"))


_MAKERS: dict[Style, Callable[[str, random.Random, Split], str]] = {
    "polite": _polite,
    "misspelt": _misspelt,
    "sloppy": _sloppy,
}


def poor(
    family: str, slots: Mapping[str, str], rng: random.Random, split: Split = "train", style: Style | None = None
) -> str:
    """Draws a poor instruction.

    Args:
        family: a key of FAMILIES.
        slots: what fills the wording's fields; stands in the result unchanged.
        rng: draws style and wording.
        split: whose wordings are used.
        style: one of STYLES; drawn when None.
    """
    chosen: Style = rng.choice(STYLES) if style is None else style
    listed = FAMILIES[family].poor.get(chosen)
    if listed is not None:
        return fill(rng.choice(listed.of(split)), **slots)
    return fill(_MAKERS[chosen](_good_wording(family, rng, split), rng, split), **slots)
