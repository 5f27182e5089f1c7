"""What people type, for training: core wordings roughened by other words, talk around them, and slips of the keyboard.

Fields in braces are filled last and never touched. Dev and test wordings are asked as they were written.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from functools import cache

from vlinstruct.instruction.templates import fill
from vlinstruct.mini import Split
from vlinstruct.mini.phrasings import around, foreign_wordings, nouns
from vlinstruct.mini.wording import Worded, fields, plural_noun, sampled, with_article

_ROUGHENED_FOREIGN = 0.5
_OTHER_NAME = 0.25
_NAMING = ("thing", "things", "colour", "first", "second")
_OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "text": ("writing", "lettering", "printed text", "letters"),
    "objects": ("things", "shapes", "items", "figures"),
}
_FIELD = re.compile(r"(\{\w+\})")
_SYNONYM, _OPENING, _CLOSING, _NO_ARTICLE = 0.25, 0.18, 0.12, 0.12
_TYPIST, _TYPO = 0.35, 0.12
_SMALL_LETTERS, _CAPITALS, _NO_END, _MORE_END = 0.22, 0.08, 0.25, 0.06
_SHORTEST = 3
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def typed(family: str, slots: Mapping[str, str], rng: random.Random) -> Worded:
    """Samples an instruction as people type it, for training: a core wording, roughened."""
    wording = sampled(family, slots, rng)
    called = {name: _called(value, rng) if name in _NAMING else value for name, value in slots.items()}
    return Worded(text=fill(roughened(wording.text, rng), **fields(called)), form=wording.form)


def foreign(rng: random.Random, split: Split = "train") -> str:
    """Samples an instruction that asks for something else than mini's world knows; for training, roughened."""
    wording = rng.choice(foreign_wordings()[split]).text
    noun = rng.choice(nouns()[split])
    text = roughened(wording, rng) if split == "train" and rng.random() < _ROUGHENED_FOREIGN else wording
    return fill(text, noun=noun, nouns=plural_noun(noun), a_noun=with_article(noun))


def _called(value: str, rng: random.Random) -> str:
    """Gives a slot's value another name at times."""
    if value in _OTHER_NAMES and rng.random() < _OTHER_NAME:
        return rng.choice(_OTHER_NAMES[value])
    return value.replace("grey", "gray") if rng.random() < _OTHER_NAME else value


@cache
def _synonyms() -> tuple[re.Pattern[str], Mapping[str, tuple[str, ...]]]:
    others: dict[str, tuple[str, ...]] = {}
    for group in around().synonyms:
        for word in group:
            others[word.lower()] = (*others.get(word.lower(), ()), *(other for other in group if other != word))
    longest_first = sorted(others, key=len, reverse=True)
    return re.compile(rf"(?<![\w'])(?:{'|'.join(map(re.escape, longest_first))})(?![\w'])", re.IGNORECASE), others


def _other_words(text: str, rng: random.Random) -> str:
    pattern, others = _synonyms()

    def other(match: re.Match[str]) -> str:
        if rng.random() >= _SYNONYM:
            return match[0]
        word = rng.choice(others[match[0].lower()])
        if match[0].isupper() and len(match[0]) > 1:
            return word.upper()
        return word[0].upper() + word[1:] if match[0][0].isupper() else word

    return pattern.sub(other, text)


def typo(word: str, rng: random.Random) -> str:
    """Makes one slip in a word of three and more letters: two exchanged, one left out, doubled, or a key beside it.

    >>> typo("of", random.Random(0))
    'of'
    """
    if len(word) < _SHORTEST or not word.isalpha():
        return word
    at = rng.randrange(len(word) - 1)
    a, b = word[at], word[at + 1]
    row = next((row for row in _KEYS if b.lower() in row), b)
    beside = row[max(0, min(len(row) - 1, row.find(b.lower()) + rng.choice((-1, 1))))]
    middle = rng.choice((b + a, b + a, a, a + b + b, a + beside, a + rng.choice("abcdefghijklmnopqrstuvwxyz")))
    return word[:at] + middle + word[at + 2 :]


def _mistyped(text: str, rng: random.Random) -> str:
    return re.sub(r"[A-Za-z]+", lambda match: typo(match[0], rng) if rng.random() < _TYPO else match[0], text)


def _framed(text: str, rng: random.Random) -> str:
    """Puts an opening, a closing or both around a wording."""
    if rng.random() < _OPENING:
        opening = rng.choice(around().openings)
        if not opening.endswith((".", "!", "?", ":")) and text[:1].isupper() and not text[1:2].isupper():
            text = text[0].lower() + text[1:]
        text = f"{opening} {text}"
    if rng.random() < _CLOSING:
        # A field at the end, an option, gets a full stop: what follows would read as a part of it.
        text = f"{text}{'.' if text.endswith('}') else ''} {rng.choice(around().closings)}"
    return text


def roughened(wording: str, rng: random.Random) -> str:
    """Makes of a core wording what somebody else might have typed; fields in braces are never touched."""
    text = _framed(wording, rng)
    manner = rng.random()
    is_typist, drops_articles = rng.random() < _TYPIST, rng.random() < _NO_ARTICLE
    parts = _FIELD.split(text)
    for i in range(0, len(parts), 2):  # a field stands between two texts
        part = _other_words(parts[i], rng)
        if drops_articles:
            part = re.sub(r"(?<!\w)(?:the|a|an) ", "", part, flags=re.IGNORECASE)
        if is_typist:
            part = _mistyped(part, rng)
        if manner < _SMALL_LETTERS:
            part = part.lower()
        elif manner > 1 - _CAPITALS:
            part = part.upper()
        parts[i] = part
    end = rng.random()
    if end < _NO_END:
        parts[-1] = parts[-1].rstrip("?.!")
    elif end > 1 - _MORE_END and parts[-1]:
        parts[-1] += rng.choice(("?", "!", "!!", " ?", "..."))
    return "".join(parts).strip() or wording
