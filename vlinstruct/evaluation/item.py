"""One item of an evaluation: a picture, the ways in which it is asked, and what is right. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from PIL import Image

Words = Literal["canonical", "paraphrased", "poor"]
Metric = Literal["cider", "accuracy", "ranked_accuracy", "vqa_accuracy", "mrr", "roc_auc"]
WORDS: tuple[Words, ...] = ("canonical", "paraphrased", "poor")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A benchmark.

    Args:
        name: what it is called.
        metric: how its answers are scored.
        is_ranked: whether the answer is one of an item's candidates, chosen by likelihood, in place of a generated one.
    """

    name: str
    metric: Metric
    is_ranked: bool


@dataclass(frozen=True, kw_only=True)
class Item:
    """A picture and a question.

    Args:
        id: unique in its task.
        task: the benchmark's name.
        draw: gives the picture.
        instructions: how it is asked, by kind of words; official benchmarks have canonical ones only.
        references: right answers.
        candidates: what is ranked, where the task ranks.
    """

    id: str
    task: str
    draw: Callable[[], Image.Image]
    instructions: Mapping[Words, str]
    references: tuple[str, ...]
    candidates: tuple[str, ...] = ()
