"""Choices that a table holds as one text with commas (IconQA's copies): divided where that can be done in one way.

A choice may hold commas itself (`1,000`, `red, then blue`), and no row says how many choices it has. What tells is the
row's answer, which is one of them, and all answers of the table: each is a choice, so that a kind of comma which none
of many answers holds is in no choice either. A row that can still be divided in two ways is not guessed at: candidates
that nobody offered would change the score in silence.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import combinations
from typing import Literal

Comma = Literal["plain", "spaced", "thousands"]
# So many answers without a kind of comma show that no choice holds it; fewer may have missed those that do.
_ENOUGH_ANSWERS = 50
_MOST_FREE = 12  # commas of a row that may be either: 4,096 divisions
_COMMA = re.compile(r"(?P<thousands>(?<=\d),(?=\d{3}(?!\d)))|(?P<spaced>,\s+)|(?P<plain>,)")
_NO_NUMBER = re.compile(r"0\d+")  # what is left of `1,000` that was divided


def commas_in_choices(answers: Sequence[str]) -> frozenset[Comma]:
    """Returns the kinds of commas that a table's choices may hold, given the right ones of all its rows.

    >>> sorted(commas_in_choices(["red", "1,000"])), sorted(commas_in_choices(["red"] * 50))
    (['spaced', 'thousands'], [])
    """
    held: set[Comma] = {kind for answer in answers for kind, _ in _commas(answer)}
    return frozenset(held if len(answers) >= _ENOUGH_ANSWERS else held | {"spaced", "thousands"})


def divisions(choices: str, answer: str, inner: Collection[Comma]) -> list[tuple[str, ...]]:
    """Returns a row's choices in every way in which they can be divided; with more than one, nobody knows.

    Args:
        choices: as the row holds them, joined.
        answer: the right one's text.
        inner: the kinds of commas that a choice may hold.

    >>> divisions("one, two", "two", {"spaced"}), divisions("1,000,2,000", "1,000", {"thousands"})
    ([('one', 'two')], [('1,000', '2,000')])
    >>> divisions("a, b, c", "c", {"spaced"}), divisions("a, b, c", "c", ())
    ([('a', 'b', 'c'), ('a, b', 'c')], [('a', 'b', 'c')])
    """
    commas = _commas(choices)
    free = [place for place, (kind, _) in enumerate(commas) if kind in inner]
    free = free[:_MOST_FREE]  # such a row is divided in several ways whatever stands behind them
    sound: dict[tuple[str, ...], bool] = {}
    for count in range(len(free) + 1):
        for joined in combinations(free, count):
            separators = [comma for place, comma in enumerate(commas) if place not in joined]
            parts = _parts(choices, [match for _, match in separators])
            if len(parts) > 1 and answer in parts and all(map(_is_whole, parts)):
                sound[parts] = len({kind == "spaced" for kind, _ in separators}) == 1
    # Choices are joined by a program: with a space after every comma, or after none.
    return [parts for parts, is_uniform in sound.items() if is_uniform] or list(sound)


def _commas(text: str) -> list[tuple[Comma, re.Match[str]]]:
    kinds: dict[str | None, Comma] = {"thousands": "thousands", "spaced": "spaced", "plain": "plain"}
    return [(kinds[match.lastgroup], match) for match in _COMMA.finditer(text)]


def _parts(text: str, separators: Sequence[re.Match[str]]) -> tuple[str, ...]:
    starts = [0, *(match.end() for match in separators)]
    ends = [*(match.start() for match in separators), len(text)]
    return tuple(text[start:end].strip() for start, end in zip(starts, ends, strict=True))


def _is_whole(choice: str) -> bool:
    """Says whether a part can be a choice: it is not empty, no rest of a number, and no half of a bracket."""
    return bool(choice) and not _NO_NUMBER.fullmatch(choice) and choice.count("(") == choice.count(")")
