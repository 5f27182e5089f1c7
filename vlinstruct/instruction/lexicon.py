"""Lexicon: the words of a text as concepts, so that synonyms, inflections and misspellings compare equal.

`lexicon.yaml` has the words. Everything takes linear time: phrases are at most six words, misspellings are looked up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import yaml

Kind = Literal["negation", "relation", "ask", "content", "soft", "function"]

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_MOST_PHRASE_WORDS = 6
_IRREGULAR = {
    "feet": "foot", "teeth": "tooth", "mice": "mouse", "geese": "goose", "knives": "knife", "leaves": "leaf",
    "wolves": "wolf", "shelves": "shelf", "loaves": "loaf", "made": "make", "ate": "eat", "ran": "run", "running": "run",
    "lying": "lie", "ridden": "ride", "rode": "ride", "drove": "drive", "driven": "drive", "broken": "break",
    "parked": "park", "kilometre": "kilometer", "metre": "meter", "tyre": "tire", "programme": "program",
    "jewellery": "jewelry", "aluminium": "aluminum",
}  # fmt: skip


@dataclass(frozen=True)
class Concept:
    """A word or phrase by its meaning.

    Args:
        kind: what a rewriting may do to it.
        name: the concept, a stem for a content word; equal for synonyms.
        text: as written, in lower case.
    """

    kind: Kind
    name: str
    text: str


@dataclass(frozen=True)
class _Lexicon:
    entries: Mapping[str, tuple[Kind, str]]
    known: frozenset[str]
    misspelt: Mapping[str, str]
    groups: Mapping[str, frozenset[str]]


def words(text: str) -> list[str]:
    """Returns the words in lower case; apostrophes are straight, hyphens part words unless they are in the lexicon.

    >>> words("What's the T-shirt’s COLOUR?")
    ['what', "'s", 'the', 't', 'shirt', 'colour']
    """
    found: list[str] = []
    for match in _WORD.finditer(text.casefold().replace("’", "'").replace("‘", "'")):
        for part in match.group().split("-"):
            stem, apostrophe, end = part.rpartition("'")
            if part.endswith("n't") and len(part) > 3:
                found += [part[:-3], "n't"]
            elif end == "s" and stem in {"what", "where", "who", "how", "that", "there", "it", "he", "she", "when"}:
                found += [stem, "'s"]
            elif apostrophe and end == "s":
                found.append(stem)
            elif apostrophe:
                found += [stem, f"'{end}"]
            else:
                found.append(part)
    return found


def concepts(text: str) -> list[Concept]:
    """Returns the text's words and phrases as concepts, in order.

    >>> [concept.name for concept in concepts("cars on top of the hue") if concept.kind != "function"]
    ['car', 'above', 'colour']
    """
    return concepts_of(words(text))


def concepts_of(spelled: list[str]) -> list[Concept]:
    """Returns words as concepts, in order; the longest phrase wins."""
    lexicon = _lexicon()
    found = []
    position = 0
    while position < len(spelled):
        for length in range(min(_MOST_PHRASE_WORDS, len(spelled) - position), 0, -1):
            phrase = " ".join(spelled[position : position + length])
            if phrase in lexicon.entries:
                kind, name = lexicon.entries[phrase]
                break
        else:
            kind, name = _single(phrase, lexicon)
        found.append(Concept(kind=kind, name=name, text=phrase))
        position += length
    return found


def corrected(word: str) -> str:
    """Returns a misspelt word of the lexicon as it should be; any other word as it is.

    >>> corrected("trianlge"), corrected("cirlce"), corrected("wheat")
    ('triangle', 'circle', 'wheat')
    """
    lexicon = _lexicon()
    if word in lexicon.entries or word in lexicon.known or len(word) < 4 or len(word) > 20:
        return word
    spellings = {word, *_shorter(word), *_swapped(word)}
    candidates = {lexicon.misspelt[spelling] for spelling in spellings if spelling in lexicon.misspelt}
    near = [right for right in candidates if right[0] == word[0] and _is_slip(word, right)]
    return min(near, key=lambda right: (abs(len(right) - len(word)), right), default=word)


def group(name: str) -> frozenset[str]:
    """Returns the names of the concepts of one of the lexicon's lists: colours, shapes, texts, persons, directed."""
    return _lexicon().groups[name]


def alike(first: str, second: str) -> bool:
    """Says whether two stems are one word, spelling mistakes aside: one letter of 4 to 6, two of longer ones.

    >>> alike("umbrela", "umbrella"), alike("hous", "hors"), alike("red", "bed")
    (True, False, False)
    """
    if first == second:
        return True
    lexicon = _lexicon()
    if (first in lexicon.known or first in lexicon.entries) and (second in lexicon.known or second in lexicon.entries):
        return False
    shorter = min(len(first), len(second))
    if shorter < 4 or max(len(first), len(second)) > 30:
        # Long strings are no words; the distance of two is quadratic.
        return False
    return _distance(first, second) <= (1 if shorter <= 6 else 2)


def stem(word: str) -> str:
    """Returns a word without plural and inflection.

    >>> [stem(word) for word in ("berries", "boxes", "glass", "sitting", "parked", "horse")]
    ['berry', 'box', 'glass', 'sit', 'park', 'hors']
    """
    word = _IRREGULAR.get(word, word)
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 4 and word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for suffix in ("ing", "ed"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            if word[-1] == word[-2] and word[-1] not in "lse":
                word = word[:-1]
            break
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def _single(word: str, lexicon: _Lexicon) -> tuple[Kind, str]:
    right = corrected(word)
    if right in lexicon.entries:
        return lexicon.entries[right]
    return "content", stem(right)


def _distance(first: str, second: str) -> int:
    """Returns the edits from one to the other: a letter more, less, another, or two neighbours exchanged."""
    before: list[int] = []
    above = list(range(len(second) + 1))
    for row, letter in enumerate(first, 1):
        line = [row]
        for column, other in enumerate(second, 1):
            best = min(above[column] + 1, line[-1] + 1, above[column - 1] + (letter != other))
            if row > 1 and column > 1 and letter == second[column - 2] and other == first[row - 2]:
                best = min(best, before[column - 2] + 1)
            line.append(best)
        before, above = above, line
    return above[-1]


def _is_slip(word: str, right: str) -> bool:
    """Says whether a word is a misspelt other: a letter more or less or two exchanged, another letter in long ones."""
    distance = _distance(word, right)
    same_length = len(word) == len(right)
    is_swap = same_length and sorted(word) == sorted(right)
    if distance == 1:
        return len(right) >= 6 or is_swap or not same_length
    return distance == 2 and len(right) >= 8


def _shorter(word: str) -> Iterator[str]:
    return (word[:position] + word[position + 1 :] for position in range(len(word)))


def _swapped(word: str) -> Iterator[str]:
    return (word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(len(word) - 1))


@cache
def _lexicon() -> _Lexicon:
    data = yaml.safe_load(resources.files("vlinstruct.instruction").joinpath("lexicon.yaml").read_text("utf-8"))
    entries: dict[str, tuple[Kind, str]] = {}
    lists: list[tuple[Kind, str]] = [("function", "function"), ("soft", "soft"), ("negation", "negation")]
    for kind, listed in lists:
        for word in data[listed].split():
            if not word.endswith("?"):  # a word of another list that would be at home here too
                entries[word] = (kind, "not" if kind == "negation" else word)
    tables: list[tuple[Kind, str]] = [("content", "synonyms"), ("relation", "relations"), ("ask", "asks")]
    for kind, listed in tables:
        for name, phrases in data[listed].items():
            for phrase in phrases.split(", "):
                entries[" ".join(words(phrase))] = (kind, str(name))
    for line in data["idioms"]:
        for phrase in line.split(", "):
            entries[" ".join(words(phrase))] = ("soft", phrase)
    entries["n't"] = ("negation", "not")
    entries["'s"] = entries["'re"] = entries["'m"] = entries["'ve"] = ("function", "is")
    known = frozenset(data["known"].split())
    known |= {stem(word) for word in known}
    groups = {name: frozenset(data[name].split()) for name in ("colours", "shapes", "texts", "persons", "directed")}
    for name in ("colours", "shapes", "texts", "persons"):
        for word in groups[name]:
            entries.setdefault(word, ("content", stem(word)))
        groups[name] |= {entries[word][1] for word in groups[name] if entries[word][0] == "content"}
    misspelt: dict[str, str] = {}
    for word in sorted(entries):
        if len(word) >= 4 and word.isalpha():
            for spelling in (word, *_shorter(word)):
                misspelt.setdefault(spelling, word)
    return _Lexicon(entries=entries, known=known, misspelt=misspelt, groups=groups)
