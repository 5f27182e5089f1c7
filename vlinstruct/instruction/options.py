"""Options: the answers that an instruction offers, in the usual ways of writing them. Linear time."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from vlinstruct.errors import shortened

_IN_PARENTHESES = re.compile(r"(?<!\w)\((?:[A-Za-z]|\d{1,2})\)")
# `A.`, `A)`, `A:` and `1)` are labels only where the next one follows in order: `vitamin C. Is it 2. or 3.`
_BARE = re.compile(r"(?<![\w.(])([A-Za-z]|\d{1,2})([.):])(?=\s)")
_BULLET = re.compile(r"^[ \t]*[-*\u2022][ \t]+(?=\S)", re.MULTILINE)
_SENTENCE_END = re.compile(r"[\n\r]|[.;!?](?=\s|$)|\s(?:[Ss]hort )?[Aa]nswer:")
_LABEL = r"(?<!\w)(?:options?|choices|candidates|possible answers|answer choices)"
_LIST = re.compile(rf"{_LABEL}[ \t]*:[ \t]*(?![\s(])", re.IGNORECASE)
_SEPARATOR = re.compile(r"\s*(?:,|/|\||;)\s*(?:or\s+|and\s+)?|\s+or\s+")


@dataclass(frozen=True)
class Option:
    """An answer that is offered.

    Args:
        mark: its label as written, empty for an item of a list.
        body: the answer, without line breaks and final punctuation.
        start: where it stands in the text.
    """

    mark: str
    body: str
    start: int

    @property
    def text(self) -> str:
        """Returns the label and the answer as one text."""
        return f"{self.mark} {self.body}".strip()

    @property
    def key(self) -> tuple[str, str]:
        """Returns what is compared: the label's letter and the answer, without case."""
        return self.mark.strip("().:").casefold(), self.body.casefold()


def find_options(text: str) -> list[Option]:
    """Returns the options in order; the last one ends with its line or sentence, or before `Answer:`.

    >>> [option.text for option in find_options("Options: (a) apple, red (b) banana. Answer:")]
    ['(a) apple, red', '(b) banana']
    >>> [option.text for option in find_options("A. red B. blue")]
    ['A. red', 'B. blue']
    >>> [option.text for option in find_options("Which one? Choices: red / light blue")]
    ['red', 'light blue']
    """
    spans = _marks(text)
    if spans:
        ends = [start for start, _ in spans[1:]] + [len(text)]
        return [
            _option(text[start:end], text[end:stop], start, is_last=stop == len(text))
            for (start, end), stop in zip(spans, ends, strict=True)
        ]
    listed = _LIST.search(text)
    if listed is None:
        return []
    # Without runs of spaces, in which the separator's search would take quadratic time.
    body = " ".join(_SENTENCE_END.split(text[listed.end() :], maxsplit=1)[0].split())
    return [Option(mark="", body=item, start=listed.start()) for item in _SEPARATOR.split(body) if item]


def options_start(text: str) -> int | None:
    """Returns where the options begin, with `Options:` before them; None where there are none."""
    found = find_options(text)
    if not found:
        return None
    start = found[0].start
    intro = re.search(rf"{_LABEL}\s*:\s*\Z", text[:start][-40:], re.IGNORECASE)
    return start if intro is None else max(0, start - 40) + intro.start()


def option_changes(initial: str, candidate: str) -> list[str]:
    """Returns which options a candidate loses, adds or moves, in words.

    >>> option_changes("Options: red, blue", "A. blue B. red")
    ['changes the order of the options']
    """
    offered, kept = find_options(initial), find_options(candidate)
    has_marks = any(option.mark for option in offered)
    # A list without labels may get some, or become a sentence: its words are compared with the other words.
    expected = [option.key if has_marks else ("", option.body.casefold()) for option in offered]
    present = [option.key if has_marks else ("", option.body.casefold()) for option in kept]
    if kept and len(expected) >= len(kept):
        # The candidate's last one may run on, since a rewriting seldom shows where it ends. As whole words:
        # `(a) reddish` does not begin with `(a) red`.
        label, body = present[-1]
        for wanted in expected:
            rest = body[len(wanted[1]) :]
            if wanted not in present and wanted[0] == label and body.startswith(wanted[1]) and not rest[:1].isalnum():
                present[-1] = wanted
    lost = Counter(expected) - Counter(present) if has_marks else Counter[tuple[str, str]]()
    shown = {key: option.text for key, option in zip(expected, offered, strict=True)}
    changes = [f"loses the option {shortened(shown[key], 40)!r}" for key in lost.elements()]
    if has_marks or not offered:
        labels = Counter(key[0] for key in expected)
        extra = Counter(key[0] for key in present) - labels
        for option in kept:
            label = option.mark.strip("().:").casefold()
            if extra[label] > 0 and option.mark:
                extra[label] -= 1
                changes.append(f"adds an option {option.mark}")
    if not changes and len(expected) > 1:
        if Counter(expected) == Counter(present):
            is_moved = expected != present
        else:
            places = [candidate.casefold().find(body) for _, body in expected]
            is_moved = not has_marks and -1 not in places and places != sorted(places)
        if is_moved:
            changes.append("changes the order of the options")
    return changes


def without_marks(text: str) -> str:
    """Returns the text without the labels of its options and without the words `Options:`."""
    parts, position = [], 0
    for start, end in _marks(text):
        parts += [text[position:start], ", "]
        position = end
    return "".join([*parts, text[position:]])


def _option(mark: str, body: str, start: int, *, is_last: bool) -> Option:
    if is_last:
        body = _SENTENCE_END.split(body.lstrip(), maxsplit=1)[0]
    # Line breaks between options are layout: a rewriting that puts them in one line has kept them.
    return Option(
        mark="" if mark.strip()[:1] in "-*\u2022" else mark, body=" ".join(body.split()).rstrip(" ,;."), start=start
    )


def _marks(text: str) -> list[tuple[int, int]]:
    """Returns where the labels stand."""
    spans = [match.span() for match in _IN_PARENTHESES.finditer(text)]
    if spans:
        return spans
    chains: dict[str, list[tuple[int, str, tuple[int, int]]]] = {}
    for match in _BARE.finditer(text):
        label, style = match.groups()
        number = int(label) if label.isdecimal() else ord(label.casefold()) - ord("a") + 1
        kind = style + ("1" if label.isdecimal() else "a" if label.islower() else "A")
        chain = chains.setdefault(kind, [])
        if number == len(chain) + 1:
            chain.append((number, label, match.span()))
    longest = max(chains.values(), key=len, default=[])
    if len(longest) >= 2:
        return [span for *_, span in longest]
    bullets = [match.span() for match in _BULLET.finditer(text)]
    return bullets if len(bullets) >= 2 else []
