"""Puts what is asked into words of a family: the canonical instruction, a good one, or a poor one.

Slots are filled last, so that no style touches them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from vlinstruct.instruction.templates import fill
from vlinstruct.mini.garbling import garbled
from vlinstruct.mini.phrasings import (
    CASUAL_CLOSINGS,
    CASUAL_OPENINGS,
    CLOSINGS,
    FAMILIES,
    MISSPELLINGS,
    OFFICIAL_OPENINGS,
    OPENINGS,
    Style,
    styles_of,
)
from vlinstruct.mini.split import Split

_GARBLED_SHARE = 0.5
_MARKS = '?.,:"'
_ARTICLES = frozenset({"the", "a", "an"})


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


def paraphrased(family: str, slots: Mapping[str, str], rng: random.Random, split: Split = "train") -> str:
    """Draws an instruction that is as good as the canonical one."""
    return fill(rng.choice(FAMILIES[family].paraphrases.of(split)), **slots)


def _with_small_letter(wording: str) -> str:
    """Makes the first letter small, unless it begins an abbreviation."""
    return wording if wording[1].isupper() else wording[0].lower() + wording[1:]


def _closed(wording: str) -> str:
    """Puts a full stop after a slot at the end, so that what follows does not read as a part of the last option."""
    return f"{wording}." if wording.endswith("}") else wording


def _careless(wording: str, rng: random.Random) -> str:
    """Small first letter, no end mark or an odd one; none behind a slot, where it would read as a part of it."""
    body = _with_small_letter(wording.rstrip("?.:"))
    return body if body.endswith("}") else body + rng.choice(("", "", "??", " ?", "!!"))


def _framed(opening: str, wording: str, closing: str, rng: random.Random) -> str:
    """Puts an opening, a closing or both around a wording."""
    begun = _with_small_letter(wording) if opening.endswith((",", "but")) else wording
    return " ".join(rng.choice(((opening, begun), (_closed(wording), closing), (opening, _closed(begun), closing))))


def _polite(wording: str, rng: random.Random, split: Split) -> str:
    return _framed(rng.choice(OPENINGS.of(split)), wording, rng.choice(CLOSINGS.of(split)), rng)


def _misspelt(wording: str, rng: random.Random, split: Split) -> str:
    """Misspells up to three words; slots, in braces, are never touched."""
    words = wording.split(" ")
    known = [i for i, word in enumerate(words) if word.strip(_MARKS).lower() in MISSPELLINGS]
    for i in rng.sample(known, min(len(known), rng.randint(1, 3))):
        bare = words[i].strip(_MARKS)
        wrong = rng.choice(MISSPELLINGS[bare.lower()].of(split))
        words[i] = words[i].replace(bare, wrong.capitalize() if bare[0].isupper() else wrong)
    return _careless(" ".join(words), rng) if rng.random() < 0.5 else " ".join(words)


def _casual(wording: str, rng: random.Random, split: Split) -> str:
    """The wrong register: chatty words around a careless wording."""
    opening, closing = rng.choice(CASUAL_OPENINGS.of(split)), rng.choice(CASUAL_CLOSINGS.of(split))
    return _framed(opening, _careless(wording, rng), closing, rng)


def _telegram(wording: str, rng: random.Random, split: Split) -> str:
    """Small letters, no articles, and "stop" for the end mark."""
    words = [word for word in wording.rstrip("?.:").lower().split(" ") if word not in _ARTICLES]
    return f"{_closed(' '.join(words))} stop"


def _official(wording: str, rng: random.Random, split: Split) -> str:
    return f"{rng.choice(OFFICIAL_OPENINGS)} {wording}"


_MAKERS: dict[Style, Callable[[str, random.Random, Split], str]] = {
    "polite": _polite,
    "misspelt": _misspelt,
    "casual": _casual,
    "telegram": _telegram,
    "official": _official,
}


def poor(
    family: str, slots: Mapping[str, str], rng: random.Random, split: Split = "train", style: Style | None = None
) -> str:
    """Draws a poor instruction.

    Args:
        family: a key of FAMILIES.
        slots: what fills the wording's fields; stands in the result unchanged.
        rng: draws style and wording.
        split: whose styles and wordings are used.
        style: one of `styles_of(split)`; drawn when None, and half of what is drawn for training is garbled besides.
    """
    allowed = styles_of(split)
    chosen: Style = rng.choice(allowed) if style is None else style
    assert chosen in allowed, f"{chosen} is held out from {split}"
    wording = _poor_wording(family, chosen, rng, split)
    if style is None and split == "train" and rng.random() < _GARBLED_SHARE:
        wording = garbled(wording, rng)
    return fill(wording, **slots)


def _poor_wording(family: str, style: Style, rng: random.Random, split: Split) -> str:
    listed = FAMILIES[family].poor.get(style)
    if listed is not None:
        return rng.choice(listed.of(split))
    return _MAKERS[style](_good_wording(family, rng, split), rng, split)
