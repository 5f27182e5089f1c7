"""How people put the instructions of each family: the data of `phrasings.yaml`, which `wording.py` puts to use.

A family has one canonical instruction (what the rewriting aims at), paraphrases that are as good, and poor wordings in
several styles; every list is split by wording into train, dev and test, and training sees train only. To add a family,
add it to `phrasings.yaml`, its name to a task of TASKS, and its facts to `questions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from vlinstruct.mini import Split

Style = Literal["verbose", "vague", "keywords", "polite", "misspelt", "casual", "telegram", "official"]
STYLES: tuple[Style, ...] = ("verbose", "vague", "keywords", "polite", "misspelt", "casual")
# A style that training never sees tells whether a rewriting has learned styles or only these lists.
_HELD_OUT_STYLES: dict[Split, tuple[Style, ...]] = {"train": (), "dev": ("official",), "test": ("telegram",)}

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


def styles_of(split: Split) -> tuple[Style, ...]:
    """Returns the poor styles a part may use: those of training, and in dev and test one that training never sees.

    >>> styles_of("test")[-1]
    'telegram'
    """
    return STYLES + _HELD_OUT_STYLES[split]


@dataclass(frozen=True, kw_only=True)
class Wordings:
    """Wordings of one kind, split so that no wording stands in two parts."""

    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]

    def of(self, split: Split) -> tuple[str, ...]:
        """Returns the part's wordings."""
        return {"train": self.train, "dev": self.dev, "test": self.test}[split]


@dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of question and its instructions.

    Args:
        canonical: the best instruction.
        slots: names of the fields in every wording.
        paraphrases: as good as the canonical one.
        poor: wordings of the styles that change the words; the other styles are made from good wordings.
    """

    canonical: str
    paraphrases: Wordings
    poor: Mapping[Style, Wordings]
    slots: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Manners:
    """What the styles put around a good wording, and how they misspell it.

    Args:
        openings: in front of a polite instruction.
        closings: behind it.
        casual_openings: in front of a casual one.
        casual_closings: behind it.
        official_openings: in front of an official one: a style of the dev part alone.
        misspellings: of a word, by the word in lower case.
    """

    openings: Wordings
    closings: Wordings
    casual_openings: Wordings
    casual_closings: Wordings
    official_openings: tuple[str, ...]
    misspellings: Mapping[str, Wordings]


@cache
def _content() -> dict[str, Any]:
    """Parses `phrasings.yaml`, once."""
    import yaml

    # libyaml takes 18 ms for the file; PyYAML's own parser, for where it was built without libyaml, 170 ms.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    source = files("vlinstruct.mini").joinpath("phrasings.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.load(source, Loader=loader)
    return content


def _wordings(parts: Mapping[str, list[str]]) -> Wordings:
    return Wordings(**{part: tuple(texts) for part, texts in parts.items()})


@cache
def families() -> Mapping[str, Family]:
    """Returns the families by name, in the file's order."""
    return {
        name: Family(
            canonical=family["canonical"],
            slots=tuple(family.get("slots", ())),
            paraphrases=_wordings(family["paraphrases"]),
            poor={style: _wordings(parts) for style, parts in family["poor"].items()},
        )
        for name, family in _content()["families"].items()
    }


@cache
def manners() -> Manners:
    """Returns what the styles put around a good wording, and how they misspell it."""
    content = _content()
    around = ("openings", "closings", "casual_openings", "casual_closings")
    return Manners(
        **{name: _wordings(content[name]) for name in around},
        official_openings=tuple(content["official_openings"]),
        misspellings={word: _wordings(parts) for word, parts in content["misspellings"].items()},
    )
