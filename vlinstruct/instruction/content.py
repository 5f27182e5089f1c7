"""Content: what an instruction must not lose when a model rewrites it, as pure functions of its text.

The paper takes every optimized instruction as it comes. A model now and then drops the question's number, invents an
option, or repeats its prompt; `--select safe` asks here before it trusts a lower IAS. Every pattern takes linear time:
the texts come from strangers and may be long.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from vlinstruct.errors import shortened
from vlinstruct.instruction.templates import pieces

# A sign (also U+2212) and a leading point count only where no word or number stands before them: `-5` is one number,
# `3-5` are two.
_NUMBER = re.compile(r"(?:(?<![\w.])[-+\u2212]?\.?)?\d+(?:[.,:/]\d+)*(?:[eE][-+]?\d+(?!\w))?")
# A quote opens where no word ends and closes where none begins: `don't` and `dogs'` are apostrophes, also when they are
# typographic (U+2018 opens, U+2019 closes). Nothing quoted contains an opening quote, which keeps the time linear.
_QUOTATION = re.compile(
    r"""
    " ([^"]+) "
  | “ ([^“”]+) ”
  | (?<!\w) \u2018 (?=\S) ( (?: (?<=\w)\u2019(?=\w) | [^\u2018\u2019] )++ ) \u2019 (?!\w)
  | (?<!\w) ' (?=\S) ( (?: (?<=\w)'(?=\w) | [^'] )++ ) (?<=\S) ' (?!\w)
    """,
    re.VERBOSE,
)
_OPTION_MARK = re.compile(r"(?<!\w)(\((?:[A-Za-z]|\d{1,2})\))")
_SENTENCE_END = re.compile(r"[\n\r]|[.;!?](?=\s|$)|\s(?:[Ss]hort )?[Aa]nswer:")
_WORD_OR_COLON = re.compile(r"\w+|:")

# Six words of a template in a row hardly come by chance; a whole piece of the template shorter than four words does.
_ECHO_WORDS = 6
_MIN_PIECE_WORDS = 4


def numbers(text: str) -> list[str]:
    """Returns the numbers that are written in digits, as written.

    >>> numbers("Is 3.50 more than -2 or 1,000 at 12:30?")
    ['3.50', '-2', '1,000', '12:30']
    """
    return _NUMBER.findall(text)


def quotations(text: str) -> list[str]:
    """Returns what stands in quotation marks, single or double, straight or typographic; apostrophes are none.

    >>> quotations("Don't say 'it's here' or “stop”.")
    ["it's here", 'stop']
    """
    return [next(filter(None, groups)) for groups in _QUOTATION.findall(text)]


def option_marks(text: str) -> list[str]:
    """Returns the labels of the options, a letter or number in parentheses.

    >>> option_marks("Which object(s)? (a) apple (b) banana")
    ['(a)', '(b)']
    """
    return _OPTION_MARK.findall(text)


def options(text: str) -> list[str]:
    """Returns the options with their labels; the last one ends with its line or sentence, or before `Answer:`.

    >>> options("Options: (a) apple, red (b) banana. Answer:")
    ['(a) apple, red', '(b) banana']
    >>> options("(a) apple (b) banana split Short answer:")
    ['(a) apple', '(b) banana split']
    """
    _, *parts = _OPTION_MARK.split(text)
    marks, bodies = parts[::2], parts[1::2]
    if bodies:
        bodies[-1] = _SENTENCE_END.split(bodies[-1].lstrip(), maxsplit=1)[0]
    # Line breaks between options are layout: a rewriting that puts them in one line has kept them.
    return [" ".join(f"{mark} {body}".split()).rstrip(" ,;.") for mark, body in zip(marks, bodies, strict=True)]


def frame(instruction: str) -> tuple[str, str, str]:
    return "", instruction, ""


def content_changes(initial: str, candidate: str, *, keep: Sequence[str] = ()) -> list[str]:
    """Returns what the candidate does to the numbers, quotations and options of the initial instruction.

    Each must occur at least as often as in the initial instruction, in any order. Options must not be added either: an
    invented one is an answer that nobody offered.

    Args:
        initial: the user's instruction.
        candidate: a rewriting of it.

    Returns:
        The changes in words, empty when the content is kept.

    >>> content_changes("Are there 2 or 3 'cats'?", "Are there 3 or 2 “cats” in it?")
    []
    >>> content_changes("Are there 2 or 3 'cats'?", "Are there 3 or 3 cats?")
    ['loses the number 2', "loses the quotation 'cats'"]
    """
    return [
        *(f"loses the number {_shown(number)}" for number in _missing(numbers(initial), numbers(candidate))),
        *(f"loses the quotation {_shown(quote)!r}" for quote in _missing(quotations(initial), quotations(candidate))),
        *(f"loses the option {_shown(option)!r}" for option in _missing_options(initial, candidate)),
        *(f"adds an option {mark}" for mark in _missing(option_marks(candidate), option_marks(initial))),
    ]


def _missing(expected: list[str], present: list[str]) -> list[str]:
    return list((Counter(expected) - Counter(present)).elements())


def _missing_options(initial: str, candidate: str) -> list[str]:
    """Returns the lost options; the candidate's last one may run on, since a rewriting seldom shows where it ends."""
    kept = options(candidate)
    lost = _missing(options(initial), kept)
    if not kept:
        return lost
    # As whole words: `(a) reddish` does not begin with `(a) red`.
    last = kept[-1]
    return [option for option in lost if not last.startswith(option) or last[len(option) : len(option) + 1].isalnum()]


def _shown(text: str) -> str:
    return shortened(text, 40)


def echoes(template: str, *, initial: str, candidate: str) -> bool:
    """Says whether the candidate repeats the template instead of answering it.

    An echo is a run of six of the template's own words, a whole piece of four or five, or a label such as `Score:`,
    that the initial instruction does not contain itself. Case, punctuation and white space do not count.

    Args:
        template: one of the templates, its fields not filled in.
        initial: the user's instruction.
        candidate: what the model wrote.

    >>> echoes("Instruction: {instruction} Score: {ias}.", initial="what?", candidate="What is it? score: 1")
    True
    >>> echoes("Instruction: {instruction} Score: {ias}.", initial="The score: ?", candidate="What is the score: ?")
    False
    """
    candidate_words, initial_words = _words(candidate), _words(initial)
    return any(phrase in candidate_words and phrase not in initial_words for phrase in _phrases(template))


def _phrases(template: str) -> list[str]:
    """Returns the runs of words that give the template away."""
    phrases = []
    for piece in pieces(template):
        words = _words(piece).split()
        is_label = len(words) > 1 and words[-1] == ":"  # more than the colon itself
        if is_label or len(words) >= _MIN_PIECE_WORDS:
            runs = range(max(1, len(words) - _ECHO_WORDS + 1))
            phrases += [f" {' '.join(words[start : start + _ECHO_WORDS])} " for start in runs]
    return phrases


def _words(text: str) -> str:
    """Returns the words and colons in lower case, a space around each, so that `in` compares whole words."""
    return f" {' '.join(_WORD_OR_COLON.findall(text.casefold()))} "
