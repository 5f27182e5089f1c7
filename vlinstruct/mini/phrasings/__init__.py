"""How people put the instructions of each family: well, in other words, and poorly. Data; `wording.py` uses it.

A family has one canonical instruction (what the rewriting aims at), paraphrases that are as good, and poor wordings in
several styles; every list is split by wording into train, dev and test, and training sees train only. Fields in braces
are the family's slots; what fills them survives every style untouched. To add a family, add a `Family` to the file of
its subject, its name to a task of TASKS, and its facts to `questions`.
"""

from __future__ import annotations

from vlinstruct.mini.phrasings.attributes import ATTRIBUTES
from vlinstruct.mini.phrasings.captions import CAPTIONS
from vlinstruct.mini.phrasings.choices import CHOICES
from vlinstruct.mini.phrasings.manners import (
    CASUAL_CLOSINGS,
    CASUAL_OPENINGS,
    CLOSINGS,
    MISSPELLINGS,
    OFFICIAL_OPENINGS,
    OPENINGS,
)
from vlinstruct.mini.phrasings.positions import POSITIONS
from vlinstruct.mini.phrasings.texts import TEXTS
from vlinstruct.mini.phrasings.wordings import STYLES, Family, Style, Wordings, styles_of

__all__ = [
    "CASUAL_CLOSINGS",
    "CASUAL_OPENINGS",
    "CLOSINGS",
    "FAMILIES",
    "MISSPELLINGS",
    "OFFICIAL_OPENINGS",
    "OPENINGS",
    "STYLES",
    "TASKS",
    "Family",
    "Style",
    "Wordings",
    "styles_of",
]

FAMILIES: dict[str, Family] = {**CAPTIONS, **ATTRIBUTES, **POSITIONS, **TEXTS, **CHOICES}

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
