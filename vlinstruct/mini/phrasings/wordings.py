"""What a list of wordings and a family of instructions are, and which styles each part of the data may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vlinstruct.mini.split import Split

Style = Literal["verbose", "vague", "keywords", "polite", "misspelt", "casual", "telegram", "official"]
STYLES: tuple[Style, ...] = ("verbose", "vague", "keywords", "polite", "misspelt", "casual")
_HELD_OUT_STYLES: dict[Split, tuple[Style, ...]] = {"train": (), "dev": ("official",), "test": ("telegram",)}


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
