"""Puts what is asked into words of a family: the canonical instruction, a good one, or a poor one.

Slots are filled last, so that no style touches them. Poor wordings for training are garbled at random besides, so that
the listed ones are not learned by heart; dev and test wordings never are, and no misspelling that stands in their lists
is ever made.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cache

from vlinstruct.instruction.templates import fill
from vlinstruct.mini import Split
from vlinstruct.mini.phrasings import Style, families, manners, styles_of

_MARKS = '?.,:"'
_ARTICLES = frozenset({"the", "a", "an"})


def canonical(family: str, slots: Mapping[str, str]) -> str:
    """Returns the family's best instruction.

    >>> canonical("colour", {"thing": "circle"})
    'What colour is the circle?'
    """
    return fill(families()[family].canonical, **slots)


def _good_wording(family: str, rng: random.Random, split: Split) -> str:
    return rng.choice((families()[family].canonical, *families()[family].paraphrases.of(split)))


def clean(family: str, slots: Mapping[str, str], rng: random.Random, split: Split = "train") -> str:
    """Samples the canonical instruction or a paraphrase."""
    return fill(_good_wording(family, rng, split), **slots)


def paraphrased(family: str, slots: Mapping[str, str], rng: random.Random, split: Split = "train") -> str:
    """Samples an instruction that is as good as the canonical one."""
    return fill(rng.choice(families()[family].paraphrases.of(split)), **slots)


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
    opening, closing = rng.choice(manners().openings.of(split)), rng.choice(manners().closings.of(split))
    return _framed(opening, wording, closing, rng)


def _misspelt(wording: str, rng: random.Random, split: Split) -> str:
    """Misspells up to three words; slots, in braces, are never touched."""
    words = wording.split(" ")
    misspellings = manners().misspellings
    places = [i for i, word in enumerate(words) if word.strip(_MARKS).lower() in misspellings]
    for i in rng.sample(places, min(len(places), rng.randint(1, 3))):
        bare = words[i].strip(_MARKS)
        wrong = rng.choice(misspellings[bare.lower()].of(split))
        words[i] = words[i].replace(bare, wrong.capitalize() if bare[0].isupper() else wrong)
    return _careless(" ".join(words), rng) if rng.random() < 0.5 else " ".join(words)


def _casual(wording: str, rng: random.Random, split: Split) -> str:
    """The wrong register: chatty words around a careless wording."""
    opening = rng.choice(manners().casual_openings.of(split))
    closing = rng.choice(manners().casual_closings.of(split))
    return _framed(opening, _careless(wording, rng), closing, rng)


def _telegram(wording: str, rng: random.Random, split: Split) -> str:
    """Small letters, no articles, and "stop" for the end mark."""
    words = [word for word in wording.rstrip("?.:").lower().split(" ") if word not in _ARTICLES]
    return f"{_closed(' '.join(words))} stop"


def _official(wording: str, rng: random.Random, split: Split) -> str:
    return f"{rng.choice(manners().official_openings)} {wording}"


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
    """Samples a poor instruction.

    Args:
        family: a key of `phrasings.families()`.
        slots: what fills the wording's fields; stands in the result unchanged.
        rng: samples style and wording.
        split: whose styles and wordings are used.
        style: one of `styles_of(split)`; sampled when None, and half of what is sampled for training is garbled.
    """
    allowed = styles_of(split)
    manner: Style = rng.choice(allowed) if style is None else style
    assert manner in allowed, f"{manner} is held out from {split}"
    wording = _poor_wording(family, manner, rng, split)
    # Not garbled where the caller names a style: whoever measures a style wants that style alone.
    if style is None and split == "train" and rng.random() < _GARBLED_SHARE:
        wording = garbled(wording, rng)
    return fill(wording, **slots)


def _poor_wording(family: str, style: Style, rng: random.Random, split: Split) -> str:
    wordings = families()[family].poor.get(style)
    if wordings is not None:
        return rng.choice(wordings.of(split))
    return _MAKERS[style](_good_wording(family, rng, split), rng, split)


_SMALL_WORD_TEXT = "the a an is are of in to there does do has have this that it and me"
_SMALL_WORDS = frozenset(_SMALL_WORD_TEXT.split())
FILLERS = (
    *("well", "so", "just", "now", "then", "really", "actually", "maybe", "here", "quickly", "exactly", "again"),
    *("simply", "kind of", "sort of", "right", "okay", "you know", "I think", "if you can", "for me", "for us"),
    *("my friend", "of course", "somehow", "at once", "and so on", "as you see", "more or less", "once more"),
)
_SHORTEST = 4
_GARBLED_SHARE = 0.5
_TYPO, _LEAVE_OUT, _FILL = 0.10, 0.15, 0.06


@cache
def _held_out() -> frozenset[str]:
    return frozenset(word for wordings in manners().misspellings.values() for word in (*wordings.dev, *wordings.test))


def typo(word: str, rng: random.Random) -> str:
    """Exchanges, drops, doubles or replaces one letter of a word of four and more.

    >>> typo("of", random.Random(0))
    'of'
    """
    if len(word) < _SHORTEST or not word.isalpha():
        return word
    at = rng.randrange(1, len(word) - 1)
    a, b = word[at], word[at + 1]
    middle = rng.choice((b + a, b, a + a + b, rng.choice("abcdefghijklmnopqrstuvwxyz") + b))
    spoilt = word[:at] + middle + word[at + 2 :]
    # By chance it may be a misspelling of dev or test, which training must not see.
    return word if spoilt.lower() in _held_out() else spoilt


def garbled(wording: str, rng: random.Random) -> str:
    """Misspells words, leaves small ones out and puts idle ones in; fields in braces are never touched."""
    words = []
    for word in wording.split(" "):
        if word.lower() in _SMALL_WORDS and rng.random() < _LEAVE_OUT:
            continue
        words.append(typo(word, rng) if "{" not in word and rng.random() < _TYPO else word)
        if rng.random() < _FILL:
            words.append(rng.choice(FILLERS))
    return " ".join(words)
