"""One item of an evaluation: a picture, the ways in which it is asked, and what is right. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from PIL import Image

Words = Literal["canonical", "paraphrased", "poor"]
"""How an item is asked: as the paper does, in other words of the same meaning, or as people type in a hurry."""
WORDS: tuple[Words, ...] = ("canonical", "paraphrased", "poor")

Metric = Literal["cider", "accuracy", "ranked_accuracy", "vqa_accuracy", "mrr", "roc_auc"]
_RANKED: frozenset[Metric] = frozenset({"ranked_accuracy", "mrr", "roc_auc"})


@dataclass(frozen=True, kw_only=True)
class Task:
    """A benchmark as far as its scores go.

    Args:
        name: what it is called.
        metric: how its answers are scored.
    """

    name: str
    metric: Metric

    @property
    def is_ranked(self) -> bool:
        """Whether the answer is one of an item's candidates, chosen by likelihood, in place of a generated one."""
        return self.metric in _RANKED


@dataclass(frozen=True, kw_only=True)
class Item:
    """A picture and a question.

    Args:
        id: unique in its task.
        task: the benchmark's name.
        load_picture: gives the picture; it is not held, since a benchmark has thousands.
        instructions: how it is asked, by kind of words; official benchmarks have canonical ones only.
        references: right answers.
        candidates: what is ranked, where the task ranks.
    """

    id: str
    task: str
    load_picture: Callable[[], Image.Image]
    instructions: Mapping[Words, str]
    references: tuple[str, ...]
    candidates: tuple[str, ...] = ()
