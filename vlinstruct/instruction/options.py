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
_WORD = re.compile(r"\w+")
_SEPARATOR = re.compile(r" ?[,/|;] ?(?:or |and )?| or ")


@dataclass(frozen=True, kw_only=True)
class Option:
    """An answer that is offered.

    Args:
        label: its label as written, empty for an item of a list.
        body: the answer, without line breaks and final punctuation.
        start: where it stands in the text.
        end: where the text goes on.
    """

    label: str
    body: str
    start: int
    end: int

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
    spans = _label_spans(text)
    if not spans:
        return _listed(text)
    found = []
    for (start, end), (stop, _) in zip(spans, [*spans[1:], (len(text), 0)], strict=True):
        if stop == len(text):
            stop = _line_end(text, end)
        # Line breaks between options are layout: a rewriting that puts them in one line has kept them.
        body = " ".join(text[end:stop].split()).rstrip(" ,;.")
        found.append(Option(label=text[start:end], body=body, start=start, end=stop))
    return found


def _label_spans(text: str) -> list[tuple[int, int]]:
    """Returns where the labels of options stand: those in parentheses, else the longest row in order, two at least.

    >>> _label_spans("A. red B. blue"), _label_spans("vitamin C. or A.")
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
    start, end = introduction.end(), _line_end(text, introduction.end())
    # Without runs of spaces, in which the separator's search would take quadratic time.
    line = " ".join(text[start:end].split())
    return [Option(label="", body=body, start=start, end=end) for body in _SEPARATOR.split(line) if body]


def _line_end(text: str, start: int) -> int:
    """Returns where the line or sentence ends whose first word stands after `start`."""
    start += len(text) - start - len(text[start:].lstrip())
    end = _SENTENCE_END.search(text, start)
    return end.start() if end else len(text)


def options_span(text: str) -> tuple[int, int]:
    """Returns where the options begin, with the `Options:` before them, and end; the end of the text for none.

    >>> options_span("Which one? Options: red, blue. Answer:"), options_span("Which?")
    ((11, 29), (6, 6))
    """
    found = find_options(text)
    if not found or (len(found) == 1 and found[0].label):  # a single label is no list: `put (x) there?`
        return len(text), len(text)
    start, end = found[0].start, found[-1].end
    introductions = [match.span() for match in _INTRODUCTION.finditer(text, max(0, start - 40), start)]
    if introductions and not text[introductions[-1][1] : start].strip():
        start = introductions[-1][0]
    return start, end


def option_changes(initial: str, candidate: str) -> list[str]:
    """Returns which options a candidate loses or adds, in words.

    Options without labels may get some, or become part of the question: their words must stay.

    >>> option_changes("(a) red (b) blue", "A. red B. green C. blue")
    ["loses the option '(b) blue'", 'adds an option C.']
    >>> option_changes("What is it? Options: red, blue", "Is it red or green?")
    ["loses the option 'blue'"]
    """
    expected, present = find_options(initial), find_options(candidate)
    if expected and not expected[0].label:
        text = f" {' '.join(_WORD.findall(candidate.casefold()))} "
        bodies = [" ".join(_WORD.findall(option.body.casefold())) for option in expected]
        lost = [option for option, body in zip(expected, bodies, strict=True) if f" {body} " not in text]
        extra = [option for option in present if " ".join(_WORD.findall(option.body.casefold())) not in bodies]
    else:
        kept = Counter(option.key for option in present)
        lost = []
        for option in expected:
            if kept[option.key] > 0:
                kept[option.key] -= 1
            elif not (present and _runs_on(option, present[-1])):
                lost.append(option)
        allowed = Counter(option.key[0] for option in expected)
        extra = []
        for option in present:
            allowed[option.key[0]] -= 1
            if allowed[option.key[0]] < 0:
                extra.append(option)
    return [f"loses the option {shortened(str(option), 40)!r}" for option in lost] + [
        f"adds an option {shortened(option.label or option.body, 40)}" for option in extra
    ]


def _runs_on(option: Option, last: Option) -> bool:
    """Says whether the last option of a rewriting is this one with more after it: its end is seldom marked.

    As whole words: `(a) reddish` does not begin with `(a) red`.
    """
    (label, body), (last_label, last_body) = option.key, last.key
    rest = last_body[len(body) :]
    return label == last_label and last_body.startswith(body) and not rest[:1].isalnum()
