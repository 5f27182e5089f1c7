"""Lexicon: the words of a text as concepts, so that synonyms, inflections and slips of the pen compare equal.

    text -> words -> concepts

`lexicon.yaml` has the words. Linear time: a phrase has at most seven words, and few misspelt words are looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Literal

Kind = Literal["negation", "relation", "ask", "content", "soft"]

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_APOSTROPHES = str.maketrans("\u2019\u2018", "''")
_VOWELS = "aeiouy"
_WITHOUT_VOWELS = str.maketrans("", "", _VOWELS)
_MOST_COMPARISONS = 2000  # of words that may be misspelt: a bound for hostile texts
_LONGEST_WORD = 20
_IRREGULAR = {
    "feet": "foot", "teeth": "tooth", "mice": "mouse", "geese": "goose", "knives": "knife", "leaves": "leaf",
    "shelves": "shelf", "ate": "eat", "eaten": "eat", "ran": "run", "running": "run", "lying": "lie", "rode": "ride",
    "wrote": "write", "written": "write", "drew": "draw", "drawn": "draw", "broken": "break", "metre": "meter",
    "tyre": "tire", "stood": "stand", "played": "play",
}  # fmt: skip


@dataclass(frozen=True)
class Concept:
    """A word or phrase by its meaning.

    Args:
        kind: what a rewriting may do to it.
        name: the meaning, a stem for a content word; equal for synonyms.
        text: as written, in lower case.
    """

    kind: Kind
    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The keys of `lexicon.yaml`."""

    spellings: str
    relations: str
    asks: str
    synonyms: str
    implied: str
    idioms: str
    negation: str
    soft: str
    known: str
    roles: str
    languages: str


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """The lists of `lexicon.yaml`, ready to look up.

    Args:
        entries: kind and name of a word or phrase.
        vocabulary: the words of all entries.
        longest: the most words of a phrase that begins with a word.
        spellings: what a hasty spelling stands for.
        digits: the digits of a number in words.
        implied: the names that imply a name.
        known: real words that are no misspellings.
        roles: the words that play a part in a sentence, by the part.
        languages: the words that tell a language.
    """

    entries: Mapping[str, tuple[Kind, str]]
    vocabulary: frozenset[str]
    longest: Mapping[str, int]
    spellings: Mapping[str, str]
    digits: Mapping[str, str]
    implied: Mapping[str, frozenset[str]]
    known: frozenset[str]
    roles: Mapping[str, frozenset[str]]
    languages: Mapping[str, frozenset[str]]


@cache
def lexicon() -> Lexicon:
    """Returns the lexicon that ships with the package."""
    from vlinstruct.settings_file import parse_settings  # here, since it imports PyYAML

    text = resources.files("vlinstruct.instruction").joinpath("lexicon.yaml").read_text(encoding="utf-8")
    source = _Source(**parse_settings(text, _Source))
    entries: dict[str, tuple[Kind, str]] = {word: ("soft", word) for word in source.soft.split()}
    entries |= dict.fromkeys(source.negation.split(), ("negation", "negation"))
    tables: list[tuple[Kind, str]] = [
        ("content", source.synonyms), ("relation", source.relations), ("ask", source.asks)
    ]  # fmt: skip
    for kind, table in tables:
        entries |= {phrase: (kind, name) for name, phrases in _phrases(table) for phrase in phrases}
    entries |= {phrase: ("soft", phrase) for phrase in source.idioms.split(", ")}
    longest: dict[str, int] = {}
    for phrase in entries:
        first, *rest = phrase.split()
        longest[first] = max(longest.get(first, 1), 1 + len(rest))
    return Lexicon(
        entries=entries,
        vocabulary=frozenset(word for phrase in entries for word in phrase.split()),
        longest=longest,
        spellings={word: right for right, words in _table(source.spellings) for word in words.split()},
        digits={name: digits for name, (digits, *_) in _phrases(source.synonyms) if digits.isdecimal()},
        implied={
            name: frozenset(entries.get(word, ("content", stem(word)))[1] for word in words.split())
            for name, words in _table(source.implied)
        },
        known=frozenset(source.known.split()),
        roles={role: frozenset(words.split()) for role, words in _table(source.roles)},
        languages={name: frozenset(words.split()) for name, words in _table(source.languages)},
    )


def _table(text: str) -> Iterator[tuple[str, str]]:
    for entry in re.split("; |\n", text.strip()):
        name, _, words = entry.partition(": ")
        yield name, words


def _phrases(table: str) -> Iterator[tuple[str, list[str]]]:
    return ((name, phrases.split(", ")) for name, phrases in _table(table))


def words(text: str) -> list[str]:
    """Returns the words in lower case, hasty spellings mended.

    >>> words("What's the T-shirt’s COLOUR, isn't it?")
    ['what', "'s", 'the', 't', 'shirt', 'colour', 'is', "n't", 'it']
    """
    spellings = lexicon().spellings
    spelled: list[str] = []
    for word in _WORD.findall(text.casefold().translate(_APOSTROPHES)):
        base, apostrophe, end = word.rpartition("'")
        if word.endswith("n't"):
            spelled += filter(None, [word[:-3], "n't"])
        elif end == "s" and base not in ("what", "where", "who", "how", "that", "there", "it", "he", "she", "option"):
            spelled.append(base)
        elif apostrophe:
            spelled += [base, f"'{end}"]
        else:
            spelled += spellings.get(word, word).split()
    return spelled


def concepts(spelled: Sequence[str]) -> list[Concept]:
    """Returns words as concepts, in order; the longest phrase wins.

    >>> [concept.name for concept in concepts(words("cars on top of the hue")) if concept.kind != "soft"]
    ['car', 'above', 'colour']
    """
    entries, longest = lexicon().entries, lexicon().longest
    found = []
    position = 0
    while position < len(spelled):
        length = min(longest.get(spelled[position], 1), len(spelled) - position)
        while length > 1 and " ".join(spelled[position : position + length]) not in entries:
            length -= 1
        phrase = " ".join(spelled[position : position + length])
        kind, name = entries.get(phrase) or entries.get(stem(phrase)) or ("content", stem(phrase))
        found.append(Concept(kind=kind, name=name, text=phrase))
        position += length
    return found


def slips(typed: Iterable[str], written: Iterable[str]) -> dict[str, str]:
    """Returns which typed words are misspelt and what each stands for: a written word, else one of the machinery.

    >>> slips(["wat", "colur", "cirle", "boat"], ["what", "colour", "circle", "coat"])
    {'colur': 'colour', 'cirle': 'circle'}
    """
    right = {word for word in written if word.isalpha()}
    by_length: dict[int, list[str]] = {}
    for word in sorted(right):
        by_length.setdefault(len(word), []).append(word)
    known = lexicon().known
    mended = {}
    typed = dict.fromkeys(typed)
    if "were" in typed and {"where", "were"} & right == {"where"}:
        mended["were"] = "where"
    budget = _MOST_COMPARISONS
    for word in typed:
        if word in right or word in lexicon().vocabulary or not word.isalpha() or not 4 <= len(word) <= _LONGEST_WORD:
            continue
        near = [other for size in (-1, 0, 1) for other in by_length.get(len(word) + size, [])]
        budget -= len(near) + 1
        if budget < 0:
            break
        for other in near:
            if _is_slip(word, other) and stem(word) != stem(other) and not (word in known and other in known):
                mended[word] = other
                break
        else:
            machinery = None if word in known else _machinery_slip(word)
            if machinery is not None:
                mended[word] = machinery
    return mended


def _is_slip(word: str, right: str) -> bool:
    """Says whether a word is another one with one mistake that does not easily make another word."""
    start = _num_shared(word, right)
    end = _num_shared(word[start:][::-1], right[start:][::-1])
    wrong, missed = word[start : len(word) - end], right[start : len(right) - end]
    if len(wrong) == len(missed) == 2:
        return wrong == missed[::-1]
    if not start or len(wrong) > 1 or len(missed) > 1:
        return False
    if len(right) < 4:
        return wrong == word[start - 1] and not missed  # a letter typed twice
    if len(wrong) != len(missed):
        return True
    # Another letter makes another word of a short one: `chair`, `chain`. Vowels are heard alike: `coler`.
    are_vowels = wrong in _VOWELS, missed in _VOWELS
    return are_vowels == (True, True) if len(word) == 5 else len(word) > 5 and are_vowels[0] == are_vowels[1]


def _num_shared(first: str, second: str) -> int:
    """Returns how many letters two words share from the start."""
    pairs = zip(first, second, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


@lru_cache(4096)
def _machinery_slip(word: str) -> str | None:
    """Returns the word of the lists that a misspelt one stands for, content words aside."""
    # What is asked for comes first: `writen` is `written` rather than `write`.
    near = sorted(
        (kind == "soft", len(right), right)
        for right, (kind, _) in lexicon().entries.items()
        if kind != "content" and right[0] in word[:2] and abs(len(right) - len(word)) <= 2 and right.isalpha()
    )
    for _, _, right in near:
        if _is_slip(word, right):
            return right
    for is_soft, _, right in near:  # vowels left out or exchanged: `couler`
        if not is_soft and len(right) > 4 and right[0] == word[0] and _bare(right) == _bare(word):
            return right
    return None


def _bare(word: str) -> str:
    return word.translate(_WITHOUT_VOWELS)


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
