"""Language: in which script and, where it is clear, in which language a text is; linear time, no model."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from vlinstruct.instruction.lexicon import lexicon

_WORD = re.compile(r"[^\W\d_]+")
_SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
_LONGEST_WORD = 40


def script(text: str) -> str | None:
    """Returns the script of most of the letters, by its Unicode name; None without letters.

    >>> script("какого цвета круг?"), script("圆是什么颜色"), script("12")
    ('CYRILLIC', 'CJK', None)
    """
    scripts = Counter(_script(letter) for letter in text if letter.isalpha())
    return scripts.most_common(1)[0][0] if scripts else None


@lru_cache(4096)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").split(" ")[0].split("-")[0]


def language(text: str) -> str | None:
    """Returns the language of a text in Latin letters; None where it is not clear.

    >>> language("Welche Farbe hat der Kreis?"), language("what colour is the circle"), language("circle colour")
    ('German', 'English', None)
    """
    spelled = set(_WORD.findall(text.casefold()))
    hits = sorted(((len(spelled & words), name) for name, words in lexicon().languages.items()), reverse=True)
    (most, name), (second, _) = hits[:2]
    return name if most >= 2 and most > second else None


def language_changes(initial: str, candidate: str) -> list[str]:
    """Returns whether a candidate is in another script or language, in words.

    >>> language_changes("what colour is it", "Welche Farbe hat das Bild?")
    ['is in German, not in English']
    """
    before, after = script(initial), script(candidate)
    if before is not None and after is not None and before != after:
        return [f"is in another script ({after.title()} letters, not {before.title()})"]
    typed, written = language(initial), language(candidate)
    if typed is not None and written is not None and typed != written:
        return [f"is in {written}, not in {typed}"]
    return []


def is_english(text: str) -> bool:
    """Says whether English word lists apply: Latin letters, and no other language is clear."""
    return script(text) in ("LATIN", None) and language(text) in ("English", None)


def word_changes(initial: str, candidate: str) -> list[str]:
    """Returns words that a candidate loses or adds, by their letters alone, for languages without a lexicon.

    Words are one if the first four in five of their letters are; texts without spaces are compared by letters.

    >>> word_changes("Welche Farbe hat der Kreis?", "Welche Farbe haben die Kreise im Bild?")
    []
    >>> word_changes("Welche Farbe hat der Kreis?", "Welche Farbe hat das Dreieck?")
    ["loses 'kreis'", "adds 'dreieck'"]
    """
    if script(initial) in _SPACELESS:
        letters = {letter for letter in initial if letter.isalpha()}
        is_lost = len(letters & set(candidate)) < 0.6 * len(letters)
        return ["loses many of the words"] if is_lost else []
    typed, written = _content(initial), _content(candidate)
    return [
        *(f"loses {word[:_LONGEST_WORD]!r}" for word in _unmatched(typed, written)),
        *(f"adds {word[:_LONGEST_WORD]!r}" for word in _unmatched(written, typed)),
    ]


def _content(text: str) -> list[str]:
    ignored = lexicon().languages.get(language(text) or "", frozenset()) | lexicon().roles["abroad"]
    return [word for word in dict.fromkeys(_WORD.findall(text.casefold())) if len(word) >= 4 and word not in ignored]


def _unmatched(words: list[str], others: list[str]) -> list[str]:
    """Returns the words of which no other has the beginning."""
    beginnings = {word[:length] for word in others for length in range(3, min(len(word), _LONGEST_WORD) + 1)}
    return [word for word in words if word[: min(_LONGEST_WORD, max(4, round(len(word) * 0.8)))] not in beginnings]
