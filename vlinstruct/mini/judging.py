"""Where the language model's encoder should look to judge what is seen by the words of a question.

The query of the verdict knows how two things stand, and looks at the word of their relation. The queries of two things
look at each other, to tell whether their colours agree. Every letter of a quotation looks at the query that has read
the same letter in the same place, at itself where none has; then the verdict's query looks at the letters that found
none. `encoder_attention.py` says why.

Legend: C context positions (queries, then prompt).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlinstruct.mini.copying import Ids
from vlinstruct.mini.encoder_attention import GUIDED_LAYERS, Looks
from vlinstruct.mini.guidance import FOCUS_QUERIES, VERDICT_QUERY

IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a verdict rests on.

    Args:
        looks: (2, C, C): what each position should attend to, in the first and in the second guided layer.
        agrees: (C,): 1 where a letter or thing agrees with what it is compared with, 0 where it does not, else IGNORED.
    """

    looks: Looks
    agrees: Ids


def no_judgement(length: int) -> Judgement:
    """Returns what wants nothing of `length` positions."""
    looks = np.zeros((len(GUIDED_LAYERS), length, length), np.float32)
    return Judgement(looks=looks, agrees=np.full(length, IGNORED))


def judge_relation(length: int, word: Sequence[int]) -> Judgement:
    """Lets the verdict look at the relation's word.

    Args:
        length: C.
        word: its positions.
    """
    judgement = no_judgement(length)
    judgement.looks[:, VERDICT_QUERY, word] = 1 / len(word)
    return judgement


def judge_sameness(length: int, agree: bool) -> Judgement:
    """Lets the queries of two things look at each other, and the verdict at both.

    >>> judge_sameness(12, True).agrees.tolist()[8:10]
    [1, 1]
    """
    judgement = no_judgement(length)
    first, second = FOCUS_QUERIES
    judgement.looks[0, [first, second], [second, first]] = 1
    judgement.looks[1, VERDICT_QUERY, [first, second]] = 1 / 2
    judgement.agrees[[first, second]] = int(agree)
    return judgement


def judge_spelling(length: int, letters: Sequence[int], quoted: str, read: str) -> Judgement:
    """Lets every quoted letter look for its like in what is read, and the verdict at those that find none, or at all.

    Args:
        length: C.
        letters: the quoted letters' positions.
        quoted: the letters.
        read: what the picture says; query i has read character i.
    """
    judgement = no_judgement(length)
    found = [place < len(read) and read[place] == letter for place, letter in enumerate(quoted)]
    for place, (position, is_found) in enumerate(zip(letters, found, strict=True)):
        judgement.looks[0, position, place if is_found else position] = 1
        judgement.agrees[position] = int(is_found)
    decisive = [position for position, is_found in zip(letters, found, strict=True) if all(found) or not is_found]
    judgement.looks[1, VERDICT_QUERY, decisive] = 1 / len(decisive)
    return judgement
