"""How people put the instructions of each family: the data of `phrasings.yaml`, which `wording.py` puts to use.

A family has a canonical instruction (what the rewriting aims at) and core wordings in many styles, split by wording
into train, dev and test; training sees train only. To add a family, add it to `phrasings.yaml`, its name to a task of
TASKS, and its facts to `questions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

from vlinstruct.mini import Split

Style = Literal[
    "plain", "command", "formal", "indirect", "chatty", "terse", "keywords", "misspelt", "shouted", "nopunct"
]
GOOD_STYLES: tuple[Style, ...] = ("plain", "command", "formal")
POOR_STYLES: tuple[Style, ...] = ("indirect", "chatty", "terse", "keywords", "misspelt", "shouted", "nopunct")
Form = Literal["open", "yes_no", "true_false"]
FORMS: tuple[Form, ...] = get_args(Form)
SIDES: dict[str, str] = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
}
"""The relation that each side of `phrasings.yaml` stands for."""

# The paper's zero-shot benchmarks, and the families that stand for each in mini's world.
TASKS: dict[str, tuple[str, ...]] = {
    "flickr30k": ("caption",),
    "nocaps": ("description",),
    "vsr": ("position",),
    "gqa": ("colour", "shape", "count", "exist", "relation", "same"),
    "iconqa": ("options",),
    "vizwiz": ("answerable",),
    "textvqa": ("reading", "number", "written", "ocr"),
    "visdial": ("dialogue",),
    "scienceqa": ("choice",),
    "hatefulmemes": ("meme",),
}


@dataclass(frozen=True, kw_only=True)
class Wording:
    """One core wording.

    Args:
        text: with the family's fields in braces.
        style: how it is put.
        form: of the answer that it wants: a verdict's, else "open".
        relation: the only one it speaks of; None for a wording that names any or none.
    """

    text: str
    style: Style
    form: Form = "open"
    relation: str | None = None


Parts = Mapping[Split, tuple[Wording, ...]]


@dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of question and its instructions.

    Args:
        canonical: the best instruction by the form of its answer; the first form is the family's own.
        wordings: how people put it, by part; no wording stands in two.
    """

    canonical: Mapping[Form, str]
    wordings: Parts

    @property
    def form(self) -> Form:
        """The family's own form."""
        return next(iter(self.canonical))


@dataclass(frozen=True, kw_only=True)
class Around:
    """What training puts around its wordings and in their words' places.

    Args:
        openings: in front of a wording.
        closings: behind it.
        synonyms: words that stand for each other.
    """

    openings: tuple[str, ...]
    closings: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]


@cache
def _content() -> dict[str, Any]:
    """Parses `phrasings.yaml`, once."""
    import yaml

    # PyYAML's own parser takes ten times as long; it is for where PyYAML was built without libyaml.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    source = files("vlinstruct.mini").joinpath("phrasings.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.load(source, Loader=loader)
    return content


def _wordings(lists: Mapping[str, list[str]], own_form: Form) -> tuple[Wording, ...]:
    """Reads one part's lists, each named by its style and, where it has them, its side and its form."""
    wordings = []
    for name, texts in lists.items():
        style, *rest = name.split(" ")
        form = next((word for word in rest if word in FORMS), own_form)
        relation = next((SIDES[word] for word in rest if word in SIDES), None)
        wordings += [Wording(text=text, style=style, form=form, relation=relation) for text in texts]  # type: ignore[arg-type]
    return tuple(wordings)


def _parts(lists: Mapping[str, Any], own_form: Form) -> Parts:
    parts: tuple[Split, ...] = get_args(Split)
    return {part: _wordings(lists[part], own_form) for part in parts}


@cache
def families() -> Mapping[str, Family]:
    """Returns the families by name, in the file's order."""
    found = {}
    for name, family in _content()["families"].items():
        best = family["canonical"]
        canonical: Mapping[Form, str] = best if isinstance(best, dict) else {"open": best}
        found[name] = Family(canonical=canonical, wordings=_parts(family, next(iter(canonical))))
    return found


@cache
def foreign_wordings() -> Parts:
    """Returns instructions that ask for something else than mini's world knows, by part."""
    return _parts(_content()["foreign"], "open")


@cache
def nouns() -> Mapping[Split, tuple[str, ...]]:
    """Returns what foreign instructions are about, by part."""
    return {part: tuple(words) for part, words in _content()["nouns"].items()}


@cache
def around() -> Around:
    """Returns what training puts around its wordings and in their words' places."""
    content = _content()
    return Around(
        openings=tuple(content["openings"]),
        closings=tuple(content["closings"]),
        synonyms=tuple(tuple(group) for group in content["synonyms"]),
    )
