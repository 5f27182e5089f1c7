"""Puts what is asked into words of a family: the canonical instruction, a good one, or a poor one.

Fields are filled last, so that no style touches what fills them. Wordings stand as they were written; training roughens
them besides (`examples/pretrain_mini/roughening.py`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from vlinstruct.instruction.templates import fill
from vlinstruct.mini import Split
from vlinstruct.mini.phrasings import GOOD_STYLES, POOR_STYLES, Form, Style, Wording, families

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


def sampled(
    family: str,
    slots: Mapping[str, str],
    rng: random.Random,
    split: Split = "train",
    styles: tuple[Style, ...] = (*GOOD_STYLES, *POOR_STYLES),
    form: Form | None = None,
) -> Wording:
    """Samples a core wording that can ask for what fills the slots.

    Args:
        family: a key of `phrasings.families()`.
        slots: what the question names.
        rng: samples the wording.
        split: whose wordings are used.
        styles: those that may be sampled.
        form: of the answer; None for any.
    """
    return rng.choice(_candidates(family, split, styles, form, slots.get("relation")))


def worded(
    family: str,
    slots: Mapping[str, str],
    rng: random.Random,
    split: Split = "train",
    styles: tuple[Style, ...] = (*GOOD_STYLES, *POOR_STYLES),
    form: Form | None = None,
) -> Worded:
    """Samples a core wording as `sampled` does, and fills it; the slots stand in the result unchanged."""
    wording = sampled(family, slots, rng, split, styles, form)
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
