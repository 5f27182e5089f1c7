"""Options: the answers that an instruction offers, in the usual ways of writing them. Linear time."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from vlinstruct.errors import shortened

_IN_PARENTHESES = re.compile(r"(?<!\w)\((?:[A-Za-z]|\d{1,2})\)")
# `A.`, `A)`, `A:` and `1)` are labels only where the next one follows in order: `vitamin C. Is it 2. or 3.`
_BARE = re.compile(r"(?<![\w.(])([A-Za-z]|\d{1,2})([.):])(?=\s)")
_SENTENCE_END = re.compile(r"[\n\r]|[.;!?](?=\s|$)|\s(?:[Ss]hort )?[Aa]nswer:")
_INTRODUCTION = re.compile(
    r"(?<!\w)(?:options?|choices|candidates|possible answers|answer choices)[ \t]*:[ \t]*", re.IGNORECASE
)
_SEPARATOR = re.compile(r" ?[,/|;] ?(?:or |and )?| or ")


@dataclass(frozen=True, kw_only=True)
class Option:
    """An answer that is offered.

    Args:
        label: its label as written, empty for an item of a list.
        body: the answer, without line breaks and final punctuation.
        start: where it stands in the text.
    """

    label: str
    body: str
    start: int

    @property
    def key(self) -> tuple[str, str]:
        """The label's letter and the answer: what is compared, without case and the style of the label."""
        return self.label.strip("().:").casefold(), self.body.casefold()

    def __str__(self) -> str:
        return f"{self.label} {self.body}".strip()


def options(text: str) -> list[str]:
    """Returns the options with their labels; the last one ends with its line or sentence, or before `Answer:`.

    >>> options("Options: (a) apple, red (b) banana. Answer:")
    ['(a) apple, red', '(b) banana']
    >>> options("A. red B. blue")
    ['A. red', 'B. blue']
    >>> options("Which one? Choices: red / light blue")
    ['red', 'light blue']
    """
    return [str(option) for option in find_options(text)]


def find_options(text: str) -> list[Option]:
    """Returns the options in order."""
    spans = label_spans(text)
    if not spans:
        return _listed(text)
    found = []
    for (start, end), (stop, _) in zip(spans, [*spans[1:], (len(text), 0)], strict=True):
        body = text[end:stop]
        if stop == len(text):
            body = _SENTENCE_END.split(body.lstrip(), maxsplit=1)[0]
        # Line breaks between options are layout: a rewriting that puts them in one line has kept them.
        found.append(Option(label=text[start:end], body=" ".join(body.split()).rstrip(" ,;."), start=start))
    return found


def label_spans(text: str) -> list[tuple[int, int]]:
    """Returns where the labels of options stand: those in parentheses, else the longest row in order, two at least.

    >>> label_spans("A. red B. blue"), label_spans("vitamin C. or A.")
    ([(0, 2), (7, 9)], [])
    """
    spans = [match.span() for match in _IN_PARENTHESES.finditer(text)]
    if spans:
        return spans
    rows: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for match in _BARE.finditer(text):
        label, end = match.groups()
        first = "1" if label.isdecimal() else "a" if label.islower() else "A"
        row = rows.setdefault((first, end), [])
        position = int(label) if first == "1" else ord(label) - ord(first) + 1
        if position == len(row) + 1:
            row.append(match.span())
    longest = max(rows.values(), key=len, default=[])
    return longest if len(longest) > 1 else []


def _listed(text: str) -> list[Option]:
    introduction = _INTRODUCTION.search(text)
    if introduction is None:
        return []
    # Without runs of spaces, in which the separator's search would take quadratic time.
    line = " ".join(_SENTENCE_END.split(text[introduction.end() :], maxsplit=1)[0].split())
    return [Option(label="", body=body, start=introduction.end()) for body in _SEPARATOR.split(line) if body]


def options_start(text: str) -> int | None:
    """Returns where the options begin, with the `Options:` before them; None where there are none.

    >>> options_start("Which one? Options: red, blue"), options_start("Which one?")
    (11, None)
    """
    found = find_options(text)
    if not found:
        return None
    start = found[0].start
    introductions = [match.span() for match in _INTRODUCTION.finditer(text, max(0, start - 40), start)]
    return introductions[-1][0] if introductions and not text[introductions[-1][1] : start].strip() else start


def option_changes(initial: str, candidate: str) -> list[str]:
    """Returns which labelled options a candidate loses or adds, in words.

    Options without labels may become part of the question: they are compared as words of it.

    >>> option_changes("(a) red (b) blue", "A. red B. green C. blue")
    ["loses the option '(b) blue'", 'adds an option C.']
    """
    expected = [option for option in find_options(initial) if option.label]
    present = [option for option in find_options(candidate) if option.label]
    kept = Counter(option.key for option in present)
    lost = []
    for option in expected:
        if kept[option.key] > 0:
            kept[option.key] -= 1
        elif not (present and _runs_on(option, present[-1])):
            lost.append(option)
    # A list without labels may get some.
    num_allowed = Counter(option.key[0] for option in expected)
    extra = [] if find_options(initial) and not expected else present
    changes = [f"loses the option {shortened(str(option), 40)!r}" for option in lost]
    for option in extra:
        num_allowed[option.key[0]] -= 1
        if num_allowed[option.key[0]] < 0:
            changes.append(f"adds an option {option.label}")
    return changes


def _runs_on(option: Option, last: Option) -> bool:
    """Says whether the last option of a rewriting is this one with more after it: its end is seldom marked.

    As whole words: `(a) reddish` does not begin with `(a) red`.
    """
    (label, body), (last_label, last_body) = option.key, last.key
    rest = last_body[len(body) :]
    return label == last_label and last_body.startswith(body) and not rest[:1].isalnum()


def without_labels(text: str) -> str:
    """Returns the text with a comma for each label of an option.

    >>> without_labels("Which? (a) red (b) blue")
    'Which? , red , blue'
    """
    parts, position = [], 0
    for start, end in label_spans(text):
        parts += [text[position:start], ","]
        position = end
    return "".join([*parts, text[position:]])
