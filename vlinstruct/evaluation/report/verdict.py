"""What a table says, in a sentence: does optimization help, by how much, on how many items, in which words.

A sentence claims something only if both the interval over resampled items and the paired permutation test do: of a few
items the one is too narrow, and the other knows no size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from vlinstruct.errors import counted
from vlinstruct.evaluation.benchmark import Task, Words
from vlinstruct.evaluation.report.columns import OPTIMIZED
from vlinstruct.evaluation.report.table import Cell, Table
from vlinstruct.metrics.bootstrap import Interval
from vlinstruct.metrics.cider import MAX_CIDER

Kind = Literal["better", "worse", "no difference", "too few items", "undefined"]
_LEAST_ITEMS = 30  # below them neither interval nor test means much
_LARGEST_P = 0.05
NEGLIGIBLE = 1.0  # points: a change that nobody would notice


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether optimization helps a model in some words.

    Args:
        model: the row.
        is_only_model: whether it is the only row, which needs no name then.
        words: how the items were asked.
        kind: what can be said.
        difference: of the averages, optimized less plain, in points.
        p_value: of the paired permutation test.
        num_items: of how many items, all tasks' together.
        num_tasks: of how many tasks.
    """

    model: str
    is_only_model: bool
    words: Words
    kind: Kind
    difference: Interval
    p_value: float
    num_items: int
    num_tasks: int

    def __str__(self) -> str:
        of_model = "" if self.is_only_model else f" {self.model}"
        if self.kind == "undefined":
            return f"Nothing can be said of{of_model or ' this run'} in {self.words} words: its tasks have no average."
        what = {
            "better": f"Optimization helps{of_model}",
            "worse": f"Optimization harms{of_model}",
            "no difference": f"Optimization changes next to nothing{' for' * bool(of_model)}{of_model}",
            "too few items": f"Too few items to tell whether optimization helps{of_model}",
        }
        how_far = f"it moves the average by {in_points(self.difference)}"
        over = f"{counted(self.num_tasks, 'task')} and {counted(self.num_items, 'item')}"
        return f"{what[self.kind]}: in {self.words} words {how_far}, over {over}."


def in_points(difference: Interval) -> str:
    """Returns a difference for a sentence.

    >>> in_points(Interval(value=-3.8, low=-7.07, high=-1.0))
    '-3.80 points (95 % interval -7.07 to -1.00)'
    """
    return f"{difference.value:+.2f} points (95 % interval {difference.low:+.2f} to {difference.high:+.2f})"


def kind_of(
    difference: Interval, p_value: float, num_items: int, *, unseen: float, negligible: float = NEGLIGIBLE
) -> Kind:
    """Returns what can be said of a difference.

    Args:
        difference: with its interval.
        p_value: two-sided.
        num_items: of how many items.
        unseen: what so many items may hide though none of them differs, in the difference's unit.
        negligible: what is too small to count, in the same unit.
    """
    if not math.isfinite(difference.value) or not math.isfinite(difference.low):
        return "undefined"
    if num_items < _LEAST_ITEMS:
        return "too few items"
    if p_value < _LARGEST_P and difference.low > 0:
        return "better"
    if p_value < _LARGEST_P and difference.high < 0:
        return "worse"
    # Of few items that hardly differ resamples are too sure that others would not, either.
    is_small = max(-difference.low, difference.high, unseen) <= negligible
    return "no difference" if is_small else "too few items"


def task_kind(table: Table, task: Task, difference: Interval, p_value: float) -> Kind:
    """Returns what can be said of a difference of a task's metric, of which a hundredth is too small to count."""
    num_items, negligible = table.sizes[task.name].num_items, MAX_CIDER / 100 if task.metric == "cider" else 0.01
    return kind_of(difference, p_value, num_items, unseen=table.unseen(task.name), negligible=negligible)


def verdicts(table: Table) -> list[Verdict]:
    """Returns a verdict for every model in all kinds of words: first where optimization has the most to do."""
    return [verdict(table, model, words) for model in table.models for words in reversed(table.words)]


def verdict(table: Table, model: str, words: Words) -> Verdict:
    """Returns whether optimization helps a model in some words."""
    optimized, plain = Cell(model, words, OPTIMIZED), Cell(model, words, "plain")
    difference, p_value = table.difference(optimized, plain), table.p_value(optimized, plain)
    return Verdict(
        model=model,
        is_only_model=len(table.models) == 1,
        words=words,
        kind=kind_of(difference, p_value, table.num_items, unseen=table.unseen_points()),
        difference=difference,
        p_value=p_value,
        num_items=table.num_items,
        num_tasks=len(table.measured_tasks),
    )
