"""The words that mini's tokenizers know as a whole; every other one is spelt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache

from vlinstruct.instruction.templates import Templates
from vlinstruct.mini.phrasings import SIDES, around, families, foreign_wordings
from vlinstruct.mini.questions import NOUNS_BY_COLOUR, plural_noun
from vlinstruct.mini.scene import COLOURS, SHAPES
from vlinstruct.mini.words import SIGN_WORDS

# Of words that people type: what they type less often is spelt, as what they never typed will be. What the language
# model writes it must have written often: with a piece for each word that is typed four times, "what year" became "what
# off". The Q-Former writes nothing. In capitals only what is typed most is a piece.
_LEAST_READ, _LEAST_WRITTEN, _LEAST_IN_CAPITALS = 4, 8, 24


def _world_texts() -> Iterable[str]:
    """What mini reads and writes whatever people type."""
    templates = Templates.default()
    yield from (templates.rewrite, templates.score, templates.compare, templates.compare_item)
    for family in families().values():
        yield from family.canonical.values()
    yield from (*SIDES.values(), *COLOURS, *SHAPES, *map(plural_noun, SHAPES))
    for named in NOUNS_BY_COLOUR.values():
        yield from named
    yield "yes no true false unanswerable an objects on and word number in background gray left right top bottom middle"
    yield "what colour is the star what shape is the red object how many circles are there"


def _typed_texts() -> Iterable[str]:
    """What people type, as far as training shows it."""
    for family in families().values():
        yield from (wording.text for wording in family.wordings["train"])
    yield from (wording.text for wording in foreign_wordings()["train"])
    yield from (*around().openings, *around().closings)
    for _ in range(_LEAST_WRITTEN):  # each of these is a word, though it stands there once
        yield from (word for group in around().synonyms for word in group)


def _words_typed(least: int) -> list[str]:
    """Returns the words of two and more letters that are pieces of their own, in lower case, sorted.

    Words of signs are not among them, which are read letter by letter; nor rare ones, nor slips of the keyboard.

    Args:
        least: how often a word is typed in training's wordings that the world itself does not need.
    """
    typed = Counter(word for text in _typed_texts() for word in _words(text))
    words = {word for text in _world_texts() for word in _words(text)}
    words |= {word for word, count in typed.items() if count >= least}
    return sorted(words.difference(SIGN_WORDS))


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]{2,}", _without_fields(text).lower())


def _without_fields(text: str) -> str:
    return re.sub(r"\{\w+\}", " ", text)


def read_words() -> list[str]:
    """Returns the words that the Q-Former's tokenizer knows, in lower case."""
    return _words_typed(_LEAST_READ)


@cache  # training samples from them, row by row
def written_words() -> Sequence[str]:
    """Returns the words, in the spellings that are pieces of the language model's tokenizer."""
    words = _words_typed(_LEAST_WRITTEN)
    spellings = [spelling for word in words for spelling in (word, word.capitalize())]
    return [*spellings, *(word.upper() for word in _words_typed(_LEAST_IN_CAPITALS))]
