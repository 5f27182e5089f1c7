"""Spoils a wording at random, for training only, so that the listed poor wordings are not learned by heart.

Dev and test wordings are never garbled, and no misspelling that stands in their lists is ever made.
"""

from __future__ import annotations

import random
from functools import cache

from vlinstruct.mini.phrasings import MISSPELLINGS

_SMALL_WORD_TEXT = "the a an is are of in to there does do has have this that it and me"
_SMALL_WORDS = frozenset(_SMALL_WORD_TEXT.split())
FILLERS = (
    *("well", "so", "just", "now", "then", "really", "actually", "maybe", "here", "quickly", "exactly", "again"),
    *("simply", "kind of", "sort of", "right", "okay", "you know", "I think", "if you can", "for me", "for us"),
    *("my friend", "of course", "somehow", "at once", "and so on", "as you see", "more or less", "once more"),
)
_SHORTEST = 4
_TYPO, _LEAVE_OUT, _FILL = 0.10, 0.15, 0.06


@cache
def _held_out() -> frozenset[str]:
    return frozenset(word for wordings in MISSPELLINGS.values() for word in (*wordings.dev, *wordings.test))


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
