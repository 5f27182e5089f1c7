"""Content: what an instruction must not lose when a model rewrites it, as pure functions of its text, for any model.

    instruction, rewriting -> numbers, quotations, options, OCR tokens, loops, language -> meaning of English -> changes

The paper takes every optimized instruction as it comes. A model now and then drops the question's number, invents an
option, answers instead of asking, or repeats its prompt; the rules of `choose.py` ask here before they trust a lower
IAS. Every pattern takes linear time: the texts come from strangers and may be long.

What this cannot see: it knows words, not grammar. Who does what to whom (`the dog chases the cat`) is not compared,
nor a converse that is true as well (`left of` for `right of`), a synonym that `lexicon.yaml` lacks is taken for another
word, a word that it has in two senses for the harmless one, and of a language other than English it compares letters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache

from vlinstruct.errors import shortened
from vlinstruct.instruction.language import is_english, language_changes, word_changes
from vlinstruct.instruction.lexicon import lexicon
from vlinstruct.instruction.meaning import meaning_changes
from vlinstruct.instruction.options import find_options, option_changes, options_span
from vlinstruct.instruction.templates import pieces

# A sign (also U+2212) and a leading point count only where no word or number stands before them: `-5` is one number,
# `3-5` are two.
_NUMBER = re.compile(r"(?:(?<![\w.])[-+\u2212]?\.?)?\d+(?:[.,:/]\d+)*(?:[eE][-+]?\d+(?!\w))?")
# A quote opens where no word ends and closes where none begins: `don't` and `dogs'` are apostrophes, also when they are
# typographic (U+2018 opens, U+2019 closes). Nothing quoted contains an opening quote, which keeps the time linear.
# Without possessive groups, which Python 3.11.2 and earlier get wrong around a look-behind.
_QUOTATION = re.compile(
    r"""
    " ([^"]+) "
  | “ ([^“”]+) ”
  | (?<!\w) \u2018 (?=\S) ( [^\u2018\u2019]+ (?: (?<=\w)\u2019(?=\w) [^\u2018\u2019]+ )* ) \u2019 (?!\w)
  | (?<!\w) ' (?=\S) ( [^']+ (?: (?<=\w)'(?=\w) [^']+ )* ) (?<=\S) ' (?!\w)
    """,
    re.VERBOSE,
)
_QUESTION_LABEL = re.compile(r"(?<![\w\"'“])(?:question|q)[ \t]*:\s*", re.IGNORECASE)
_ANSWER_CUE = re.compile(
    r"\s*(?<!\w)(?:(?:the|your|short|long|final|brief) ){0,3}(?:answer|a)[ \t]*:\s*\Z", re.IGNORECASE
)
_MOST_CUE_CHARACTERS = 100
# Lines behind a question that say how to answer it, as chat models are asked (LLaVA-1.5, lmms-eval).
_ANSWER_LINE = re.compile(
    r"""[ \t]* (?:
        (?:please\ )? (?:answer|reply|respond) (?:\ the\ question)? \ (?:with|in|using|by|only|briefly|directly|yes) \b
      | when\ the\ provided\ information\ is\ insufficient
      | reference\ ocr\ tokens? [ \t]* :
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_OCR_LABEL = re.compile(r"\s*(?:reference )?ocr(?: tokens?| text)?[ \t]*:", re.IGNORECASE)
_OCR_TOKENS = re.compile(r"(?<!\w)ocr tokens?:[^.\n]*", re.IGNORECASE)
_SPACES = re.compile(r"\s+")
_WORD = re.compile(r"\w+")
_LETTERS_AGAIN = re.compile(r"([^\W\d_]{1,4}?)\1{7,}")
_WORD_OR_COLON = re.compile(r"\w+|:")

# Six words of a template in a row hardly come by chance; a whole piece of the template shorter than four words does.
_ECHO_WORDS = 6
_MIN_PIECE_WORDS = 4
_MOST_LOOP_WORDS = 12


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


def frame(instruction: str) -> tuple[str, str, str]:
    """Splits an instruction into what stands before the question, the question, and what stands after it.

    Before stand OCR tokens, a context and the label `Question:`; after stand options, `Answer:`, and lines that say how
    to answer. Joined, the three are the instruction.

    >>> frame("OCR tokens: a, b, c. Question: what brand is it? \\n Short answer:")
    ('OCR tokens: a, b, c. Question: ', 'what brand is it?', ' \\n Short answer:')
    >>> frame("Which one? Options: red, blue")
    ('', 'Which one?', ' Options: red, blue')
    >>> frame("What is it?\\nAnswer the question using a single word or phrase.")
    ('', 'What is it?', '\\nAnswer the question using a single word or phrase.')
    >>> frame("what is it")
    ('', 'what is it', '')
    """
    start, end = 0, len(instruction)
    cue = _ANSWER_CUE.search(instruction, max(0, end - _MOST_CUE_CHARACTERS))
    if cue is not None:
        end = cue.start()
    else:
        while (line := instruction.rfind("\n", 0, end)) >= 0 and _ANSWER_LINE.match(instruction, line + 1):
            end = line
    # The last one: what comes before may be examples.
    labels = [match.end() for match in _QUESTION_LABEL.finditer(instruction, 0, end)]
    if labels:
        start = labels[-1]
    elif _OCR_LABEL.match(instruction):
        start = _tokens_end(instruction[:end])
    first, _ = options_span(instruction[start:end])
    if first > 0:
        end = start + first
    question = instruction[start:end].strip()
    if not question or question == instruction.strip():  # white space alone is no frame: it stays as it was typed
        return "", instruction, ""
    start = instruction.index(question, start)
    return instruction[:start], question, instruction[start + len(question) :]


def _tokens_end(text: str) -> int:
    """Returns where a list of OCR tokens ends: at the first boundary that no further token of the list follows."""
    end = 0
    for match in _SPACES.finditer(text):
        if "\n" not in match[0] and text[match.start() - 1] not in ".;":
            continue
        end = match.end()
        following = text[end : end + 200].split()[:3]
        if len(following) > 1 and not any(word.endswith(",") for word in following):
            break
    return end


def loops(text: str) -> bool:
    """Says whether a text repeats itself: a word four times in a row, a phrase of up to twelve words three times.

    >>> loops("OCR tokens: l, l, l, l"), loops("a very, very old and very good book")
    (True, False)
    """
    return _loop(text) is not None


def _loop(text: str) -> tuple[str, int] | None:
    """Returns what is repeated and how many times."""
    words = _WORD.findall(text.casefold())
    for length in range(1, _MOST_LOOP_WORDS + 1):
        run = longest = end = 0
        for position in range(length, len(words)):
            run = run + 1 if words[position] == words[position - length] else 0
            if run > longest:
                longest, end = run, position
        times = longest // length + 1
        if times >= (4 if length == 1 else 3):
            first = end - longest - length + 1
            return " ".join(words[first : first + length]), times
    letters = _LETTERS_AGAIN.search(text.casefold())
    return None if letters is None else (letters[1], len(letters[0]) // len(letters[1]))


def content_changes(initial: str, candidate: str, *, keep: Sequence[str] = ()) -> list[str]:
    """Returns what the candidate does to the content of the initial instruction, in words.

    Beyond what `literal_changes` compares, the question must stay the same in form and subject (`meaning.py`), the
    language and the OCR tokens too, and nothing may be repeated without end. White space, case and final punctuation do
    not count.

    Args:
        initial: the user's instruction.
        candidate: a rewriting of it.
        keep: words and phrases that must stay where the initial instruction has them.

    Returns:
        The changes, each a phrase that fits after "the rewritten one"; empty when the content is kept.

    >>> content_changes("is the circle on the left", "Is the circle there?", keep=["on the left"])
    ["loses 'on the left'", "loses the relation 'left'"]
    """
    return list(_content_changes(initial, candidate, tuple(keep)))


@lru_cache(4096)  # many pictures are asked about in the same words
def _content_changes(initial: str, candidate: str, keep: tuple[str, ...]) -> tuple[str, ...]:
    if _plain(initial) == _plain(candidate):
        return ()
    changes = [f"loses {_shown(phrase)!r}" for phrase in keep if _has(initial, phrase) and not _has(candidate, phrase)]
    changes += [*literal_changes(initial, candidate), *_lost_tokens(initial, candidate)]
    loop, own = _loop(candidate), _loop(initial)
    if loop is not None and (own is None or own[0] != loop[0]):
        changes.append(f"repeats {_shown(loop[0])!r} {loop[1]} times")
    spoken = language_changes(initial, candidate)
    if spoken:
        return (*changes, *spoken)
    if not is_english(initial):
        return (*changes, *word_changes(_asked(initial), _asked(candidate)))
    has_text = bool(numbers(initial) or quotations(initial))
    offered = " ".join(option.body for option in find_options(initial))
    changes += meaning_changes(_asked(initial), _asked(candidate), offered=offered, has_text=has_text)
    return tuple(changes)


def literal_changes(initial: str, candidate: str) -> list[str]:
    """Returns what the candidate does to the numbers, quotations and options of the initial instruction.

    Each must occur at least as often as in the initial instruction, in any order. Options must not be added either: an
    invented one is an answer that nobody offered.

    >>> literal_changes("Are there 2 or 3 'cats'?", "Are there three or 2 “cats” in it?")
    []
    >>> literal_changes("Are there 2 or 3 'cats'?", "Are there 3 or 3 cats?")
    ['loses the number 2', "loses the quotation 'cats'"]
    """
    in_words = [digits for word in _WORD.findall(candidate.casefold()) if (digits := lexicon().digits.get(word))]
    lost_numbers = _missing(numbers(initial), numbers(candidate) + in_words)
    return [
        *(f"loses the number {_shown(number)}" for number in lost_numbers),
        *(f"loses the quotation {_shown(quote)!r}" for quote in _missing(quotations(initial), quotations(candidate))),
        *option_changes(initial, candidate),
    ]


def _lost_tokens(initial: str, candidate: str) -> list[str]:
    """Returns whether OCR tokens are lost: they are what the question is asked with, not words to rewrite."""
    before, *_ = frame(initial)
    if not _OCR_LABEL.match(before):
        return []
    lost = _missing(_WORD.findall(before.casefold()), [*_WORD.findall(candidate.casefold()), "question"])
    return [f"loses the OCR token {_shown(lost[0])!r}"] if lost else []


def _asked(text: str) -> str:
    """Returns the words whose meaning is compared: without OCR tokens and options, which are compared by letters."""
    before, question, after = frame(text)
    if not _OCR_LABEL.match(before):
        question = before + question
    text = _OCR_TOKENS.sub(" ", question + after)
    start, end = options_span(text)
    return f"{text[:start]} {text[end:]}"


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(" .?!")


def _has(text: str, phrase: str) -> bool:
    """Says whether a phrase stands in the text as whole words, case and white space aside."""
    wanted = " ".join(phrase.casefold().split())
    return bool(wanted) and bool(re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", " ".join(text.casefold().split())))


def _missing(expected: list[str], present: list[str]) -> list[str]:
    return list((Counter(expected) - Counter(present)).elements())


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


@cache
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
