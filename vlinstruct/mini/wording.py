"""Puts what is asked into words of a family: the canonical instruction, a good one, a poor one, or as people type.

Fields are filled last, so that no style touches what fills them. What training draws is roughened besides: other words
for words, talk around the wording, slips of the keyboard. Dev and test wordings stand as they were written.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from vlinstruct.instruction.templates import fill
from vlinstruct.mini import Split
from vlinstruct.mini.phrasings import (
    GOOD_STYLES,
    POOR_STYLES,
    Form,
    Style,
    Wording,
    around,
    families,
    foreign_wordings,
    nouns,
)

_SAME_VERDICT = {"yes": "true", "no": "false", "true": "yes", "false": "no"}
_VERDICTS: Mapping[Form, tuple[str, ...]] = {"open": (), "yes_no": ("yes", "no"), "true_false": ("true", "false")}


@dataclass(frozen=True, kw_only=True)
class Worded:
    """A question in words.

    Args:
        text: the instruction.
        form: of the answer that it wants.
    """

    text: str
    form: Form


def answer_in(form: Form, answer: str) -> str:
    """Returns a verdict in the words of a form; other answers stay.

    >>> answer_in("true_false", "yes"), answer_in("yes_no", "no"), answer_in("open", "red")
    ('true', 'no', 'red')
    """
    return answer if form == "open" or answer in _VERDICTS[form] else _SAME_VERDICT.get(answer, answer)


def with_article(noun: str) -> str:
    """Returns "a red star", "an orange ring".

    >>> with_article("orange ring")
    'an orange ring'
    """
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural_noun(noun: str) -> str:
    """Returns the noun's plural.

    >>> plural_noun("cross"), plural_noun("knife"), plural_noun("baby")
    ('crosses', 'knives', 'babies')
    """
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun[:-2]}ves" if noun.endswith("fe") else f"{noun}s"


def fields(slots: Mapping[str, str]) -> dict[str, str]:
    """Returns what fills a wording's fields: the slots, and a thing with its article and in the plural.

    >>> fields({"thing": "red star"})
    {'thing': 'red star', 'a_thing': 'a red star', 'things': 'red stars'}
    """
    thing = slots.get("thing")
    forms = {} if thing is None else {"thing": thing, "a_thing": with_article(thing), "things": plural_noun(thing)}
    return {**forms, **slots}


def canonical(family: str, slots: Mapping[str, str], form: Form | None = None) -> str:
    """Returns the family's best instruction, in its own form or another of its forms.

    >>> canonical("colour", {"thing": "circle"})
    'What colour is the circle?'
    """
    best = families()[family]
    return fill(best.canonical[form or best.form], **fields(slots))


@cache
def _candidates(
    family: str, split: Split, styles: tuple[Style, ...], form: Form | None, relation: str | None
) -> Sequence[Wording]:
    return [
        wording
        for wording in families()[family].wordings[split]
        if wording.style in styles and form in (None, wording.form) and wording.relation in (None, relation)
    ]


def _sampled(
    family: str,
    slots: Mapping[str, str],
    rng: random.Random,
    split: Split,
    styles: tuple[Style, ...],
    form: Form | None,
) -> Wording:
    return rng.choice(_candidates(family, split, styles, form, slots.get("relation")))


def worded(
    family: str,
    slots: Mapping[str, str],
    rng: random.Random,
    split: Split = "train",
    styles: tuple[Style, ...] = (*GOOD_STYLES, *POOR_STYLES),
    form: Form | None = None,
) -> Worded:
    """Samples a core wording as it stands.

    Args:
        family: a key of `phrasings.families()`.
        slots: what the question names; stands in the result unchanged.
        rng: samples the wording.
        split: whose wordings are used.
        styles: those that may be sampled.
        form: of the answer; None for any.
    """
    wording = _sampled(family, slots, rng, split, styles, form)
    return Worded(text=fill(wording.text, **fields(slots)), form=wording.form)


def clean(family: str, slots: Mapping[str, str], rng: random.Random, split: Split = "train") -> str:
    """Samples the canonical instruction or, five times in six, another good one."""
    return canonical(family, slots) if rng.random() < 1 / 6 else paraphrased(family, slots, rng, split)


def paraphrased(family: str, slots: Mapping[str, str], rng: random.Random, split: Split = "train") -> str:
    """Samples an instruction that is as good as the canonical one, in the family's own form."""
    return worded(family, slots, rng, split, GOOD_STYLES, families()[family].form).text


def poor(family: str, slots: Mapping[str, str], rng: random.Random, split: Split = "train") -> str:
    """Samples a poor instruction in the family's own form."""
    return worded(family, slots, rng, split, POOR_STYLES, families()[family].form).text


def typed(family: str, slots: Mapping[str, str], rng: random.Random) -> Worded:
    """Samples an instruction as people type it, for training: a core wording, roughened."""
    wording = _sampled(family, slots, rng, "train", (*GOOD_STYLES, *POOR_STYLES), None)
    called = {name: _called(value, rng) if name in _NAMING else value for name, value in slots.items()}
    return Worded(text=fill(roughened(wording.text, rng), **fields(called)), form=wording.form)


def foreign(rng: random.Random, split: Split = "train") -> str:
    """Samples an instruction that asks for something else than mini's world knows; for training, roughened."""
    wording = rng.choice(foreign_wordings()[split]).text
    noun = rng.choice(nouns()[split])
    text = roughened(wording, rng) if split == "train" and rng.random() < _ROUGHENED_FOREIGN else wording
    return fill(text, noun=noun, nouns=plural_noun(noun), a_noun=with_article(noun))


_ROUGHENED_FOREIGN = 0.5
_OTHER_NAME = 0.25
_NAMING = ("thing", "things", "colour", "first", "second")
_OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "text": ("writing", "lettering", "printed text", "letters"),
    "objects": ("things", "shapes", "items", "figures"),
}


def _called(value: str, rng: random.Random) -> str:
    """Gives a slot's value another name at times."""
    if value in _OTHER_NAMES and rng.random() < _OTHER_NAME:
        return rng.choice(_OTHER_NAMES[value])
    return value.replace("grey", "gray") if rng.random() < _OTHER_NAME else value


_FIELD = re.compile(r"(\{\w+\})")
_SYNONYM, _OPENING, _CLOSING, _NO_ARTICLE = 0.25, 0.18, 0.12, 0.12
_TYPIST, _TYPO = 0.35, 0.12
_SMALL_LETTERS, _CAPITALS, _NO_END, _MORE_END = 0.22, 0.08, 0.25, 0.06
_SHORTEST = 3
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


@cache
def _synonyms() -> tuple[re.Pattern[str], Mapping[str, tuple[str, ...]]]:
    others: dict[str, tuple[str, ...]] = {}
    for group in around().synonyms:
        for word in group:
            others[word.lower()] = (*others.get(word.lower(), ()), *(other for other in group if other != word))
    longest_first = sorted(others, key=len, reverse=True)
    return re.compile(rf"(?<![\w'])(?:{'|'.join(map(re.escape, longest_first))})(?![\w'])", re.IGNORECASE), others


def _other_words(text: str, rng: random.Random) -> str:
    pattern, others = _synonyms()

    def other(match: re.Match[str]) -> str:
        if rng.random() >= _SYNONYM:
            return match[0]
        word = rng.choice(others[match[0].lower()])
        if match[0].isupper() and len(match[0]) > 1:
            return word.upper()
        return word[0].upper() + word[1:] if match[0][0].isupper() else word

    return pattern.sub(other, text)


def typo(word: str, rng: random.Random) -> str:
    """Makes one slip in a word of three and more letters: two exchanged, one left out, doubled, or a key beside it.

    >>> typo("of", random.Random(0))
    'of'
    """
    if len(word) < _SHORTEST or not word.isalpha():
        return word
    at = rng.randrange(len(word) - 1)
    a, b = word[at], word[at + 1]
    row = next((row for row in _KEYS if b.lower() in row), b)
    beside = row[max(0, min(len(row) - 1, row.find(b.lower()) + rng.choice((-1, 1))))]
    middle = rng.choice((b + a, b + a, a, a + b + b, a + beside, a + rng.choice("abcdefghijklmnopqrstuvwxyz")))
    return word[:at] + middle + word[at + 2 :]


def _mistyped(text: str, rng: random.Random) -> str:
    return re.sub(r"[A-Za-z]+", lambda match: typo(match[0], rng) if rng.random() < _TYPO else match[0], text)


def _framed(text: str, rng: random.Random) -> str:
    """Puts an opening, a closing or both around a wording."""
    if rng.random() < _OPENING:
        opening = rng.choice(around().openings)
        if not opening.endswith((".", "!", "?", ":")) and text[:1].isupper() and not text[1:2].isupper():
            text = text[0].lower() + text[1:]
        text = f"{opening} {text}"
    if rng.random() < _CLOSING:
        # A field at the end, an option, gets a full stop: what follows would read as a part of it.
        text = f"{text}{'.' if text.endswith('}') else ''} {rng.choice(around().closings)}"
    return text


def roughened(wording: str, rng: random.Random) -> str:
    """Makes of a core wording what somebody else might have typed; fields in braces are never touched."""
    text = _framed(wording, rng)
    manner = rng.random()
    is_typist, drops_articles = rng.random() < _TYPIST, rng.random() < _NO_ARTICLE
    parts = _FIELD.split(text)
    for i in range(0, len(parts), 2):  # a field stands between two texts
        part = _other_words(parts[i], rng)
        if drops_articles:
            part = re.sub(r"(?<!\w)(?:the|a|an) ", "", part, flags=re.IGNORECASE)
        if is_typist:
            part = _mistyped(part, rng)
        if manner < _SMALL_LETTERS:
            part = part.lower()
        elif manner > 1 - _CAPITALS:
            part = part.upper()
        parts[i] = part
    end = rng.random()
    if end < _NO_END:
        parts[-1] = parts[-1].rstrip("?.!")
    elif end > 1 - _MORE_END and parts[-1]:
        parts[-1] += rng.choice(("?", "!", "!!", " ?", "..."))
    return "".join(parts).strip() or wording
