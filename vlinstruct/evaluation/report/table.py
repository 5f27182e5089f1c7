"""From records to the table: every task's score, averages relative to vanilla, intervals over resampled items.

A task's score is its metric over all items whose pictures could be read, the same for every cell. Averages over tasks
are of scores relative to the first model's plain answers in canonical words, in percent, so that CIDEr, which is not
bounded by 1, does not dominate. A resample draws items of every task anew, the same for all cells (paired); CIDEr's
document frequencies stay those of the whole set.

Legend: N items of a task, R resamples.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlinstruct.evaluation.benchmark import WORDS, Task, Words
from vlinstruct.evaluation.parts import TIMES_FILE
from vlinstruct.evaluation.report.columns import (
    OPTIMIZED,
    STAGES,
    UNSURE_STAGES,
    Column,
    columns_of,
    is_sure,
    item_of,
    model_of,
    read_records,
    wording_of,
)
from vlinstruct.evaluation.report.scores import (
    IntervalMethod,
    TaskSize,
    TextRules,
    are_positive,
    item_values,
    lavis_scores,
    task_interval,
    task_scores,
)
from vlinstruct.instruction.optimize import DEFAULT_THRESHOLDS
from vlinstruct.metrics.bootstrap import NUM_RESAMPLES, Interval, interval, resampled_rows, wilson
from vlinstruct.metrics.captions import CaptionTokenizer, tokenized
from vlinstruct.metrics.cider import MAX_CIDER
from vlinstruct.metrics.paired import difference_interval, flipped_sums, swapped_areas, two_sided_p_value
from vlinstruct.metrics.roc_auc import middle_ranks
from vlinstruct.metrics.vqa_accuracy import Normalizer
from vlinstruct.settings import Thresholds

_PERCENT = 100.0
_NUM_SWAPS = 2_000
Records = Mapping[tuple[str, Words, str], Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Cell:
    """A cell of the table.

    Args:
        model: the row.
        words: how the items were asked.
        column: how the instruction was chosen.
    """

    model: str
    words: Words
    column: Column


@dataclass(frozen=True, kw_only=True)
class Table:
    """All scores, on the items themselves first and then on R resamples: (1 + R,) per cell and task.

    Args:
        tasks: the benchmarks.
        models: the rows; the first is what the others are relative to.
        words: how the items were asked, canonical words first.
        columns: the ways to choose an instruction.
        scores: by cell and task; NaN where a metric does not exist.
        lavis_scores: exact match with LAVIS' normalisation, where it differs from ours on some answer.
        sizes: of how many items each task's scores are.
        seconds: per item, by cell; NaN where it was not measured.
        values: what every item has, N by cell and task: its part of a mean, or what an area ranks it by.
        item_places: where an item's value stands, by task and id.
        labels: which items are positive, N, by the tasks whose metric is an area.
        seed: of the resamples.
        caption_tokenizer: what CIDEr's captions were tokenized by; None where no task has captions.
    """

    tasks: Sequence[Task]
    models: Sequence[str]
    words: Sequence[Words]
    columns: Sequence[Column]
    scores: Mapping[tuple[Cell, str], NDArray[np.float64]]
    sizes: Mapping[str, TaskSize]
    seconds: Mapping[Cell, float]
    values: Mapping[tuple[Cell, str], NDArray[np.float64]]
    item_places: Mapping[str, Mapping[str, int]]
    labels: Mapping[str, NDArray[np.bool_]]
    seed: int
    lavis_scores: Mapping[tuple[Cell, str], NDArray[np.float64]] = field(default_factory=dict)
    caption_tokenizer: CaptionTokenizer | None = None

    @property
    def base(self) -> Cell:
        """What everything is relative to."""
        return Cell(self.models[0], "canonical", "plain")

    @property
    def measured_tasks(self) -> Sequence[Task]:
        """The tasks that have a score: averages are over these."""
        return [task for task in self.tasks if np.isfinite(self.scores[self.base, task.name][0])]

    @property
    def cells(self) -> list[Cell]:
        """All cells: of every model, in all kinds of words, every way."""
        return [Cell(model, words, column) for model in self.models for words in self.words for column in self.columns]

    @property
    def num_items(self) -> int:
        """Of how many items an average is, all tasks' together."""
        return sum(self.sizes[task.name].num_items for task in self.measured_tasks)

    def is_base(self, cell: Cell) -> bool:
        """Says whether a cell is 100 because everything is relative to it."""
        return cell == self.base or (cell.model, cell.column) == (self.base.model, "always canonical")

    def task_score(self, cell: Cell, task: str) -> Interval:
        """Returns a task's score, in the metric's own unit, 1 for all right."""
        return self._task_interval(cell, task)[0]

    def interval_method(self, cell: Cell, task: str) -> IntervalMethod:
        """Returns how the interval of a task's score was found."""
        return self._task_interval(cell, task)[1]

    def _task_interval(self, cell: Cell, name: str) -> tuple[Interval, IntervalMethod]:
        task = next(task for task in self.tasks if task.name == name)
        return task_interval(task, self.scores[cell, name], self.sizes[name])

    def lavis_score(self, cell: Cell, task: str) -> Interval | None:
        """Returns a task's exact match with LAVIS' normalisation; None where it is ours."""
        scores = self.lavis_scores.get((cell, task))
        return None if scores is None else wilson(float(scores[0]), self.sizes[task].num_items)

    def average(self, cell: Cell) -> Interval:
        """Returns the average over tasks relative to the base, in percent; of the base itself 100, by definition."""
        average = interval(self._relative(cell))
        if self.is_base(cell):
            return average
        widened = self._widened(average)
        return replace(widened, low=max(widened.low, 0.0))

    def difference(self, cell: Cell, other: Cell) -> Interval:
        """Returns by how many points a cell's average is above another's."""
        return self._widened(interval(self._difference(cell, other)))

    def p_value(self, cell: Cell, other: Cell) -> float:
        """Returns how probable so large a difference of two averages is, were both cells alike.

        A paired permutation test: every item's two answers might as well have been each other's.
        """
        tasks = self.measured_tasks
        weights = {task.name: self._points_of(task.name) for task in tasks}
        if not all(np.isfinite(weight) for weight in weights.values()):
            return math.nan
        differences = [
            weights[task.name] * self._item_differences(cell, other, task.name) / self.sizes[task.name].num_items
            for task in tasks
            if task.name not in self.labels
        ]
        of_means = np.concatenate([np.zeros(0), *differences])
        areas = [task.name for task in tasks if task.name in self.labels]
        if not areas:
            return two_sided_p_value(of_means.tolist(), seed=self.seed)
        drawn = flipped_sums(of_means, seed=self.seed, num_draws=_NUM_SWAPS)
        drawn = drawn + sum(weights[name] * self._swapped_areas(cell, other, name) for name in areas)
        return _share_as_far(drawn)

    def task_difference(self, cell: Cell, other: Cell, task: str) -> Interval:
        """Returns by how much a task's score is above another cell's, in the metric's own unit."""
        found = interval(self.scores[cell, task] - self.scores[other, task])
        return _around(found.value, self.unseen(task)) if found.low == found.high else found

    def task_p_value(self, cell: Cell, other: Cell, task: str) -> float:
        """Returns how probable so large a difference of a task's scores is, were both cells alike; as `p_value`."""
        if not np.isfinite(self.scores[cell, task][0]):
            return math.nan
        if task in self.labels:
            return _share_as_far(self._swapped_areas(cell, other, task))
        return two_sided_p_value(self._item_differences(cell, other, task).tolist(), seed=self.seed)

    def num_differing(self, cell: Cell, other: Cell, task: str) -> int:
        """Returns on how many items of a task two cells have other scores."""
        return 0 if not self.sizes[task].num_items else int(np.count_nonzero(self._item_differences(cell, other, task)))

    def _item_differences(self, cell: Cell, other: Cell, task: str) -> NDArray[np.float64]:
        """Returns by how much every item's score is above another cell's; of an area, its rank."""
        values, others = self.values[cell, task], self.values[other, task]
        return middle_ranks(values) - middle_ranks(others) if task in self.labels else values - others

    def _swapped_areas(self, cell: Cell, other: Cell, task: str) -> NDArray[np.float64]:
        if not self.num_differing(cell, other, task):
            return np.zeros(1 + _NUM_SWAPS)
        return swapped_areas(
            self.labels[task], self.values[cell, task], self.values[other, task], seed=self.seed, num_draws=_NUM_SWAPS
        )

    def _widened(self, found: Interval) -> Interval:
        """Returns an interval in points that is not empty where no item differs, which proves nothing of others."""
        return _around(found.value, self.unseen_points()) if found.low == found.high else found

    def unseen_points(self) -> float:
        """Returns by how many points two averages may differ though they do on no item."""
        spreads = [self.unseen(task.name) * self._points_of(task.name) for task in self.measured_tasks]
        return math.hypot(*spreads) if spreads else math.inf

    def _points_of(self, task: str) -> float:
        """Returns how many points of the average one of a task's score is; infinite where the base's is 0."""
        base = float(self.scores[self.base, task][0])
        return _PERCENT / len(self.measured_tasks) / base if base else math.inf

    def unseen(self, task: str) -> float:
        """Returns by how much a task's score may differ though it does on no item, in the metric's own unit."""
        size = self.sizes[task]
        if not size.num_items:
            return math.inf
        metric = next(one.metric for one in self.tasks if one.name == task)
        largest = MAX_CIDER if metric == "cider" else 1.0
        return difference_interval([0.0] * (size.smaller_class or size.num_items), largest=largest).high

    def interaction(self, model: str, words: Words, column: Column) -> Interval:
        """Returns what a way to choose gains with a model more than with the first one, in points."""
        gains = [
            self._difference(Cell(name, words, column), Cell(name, words, "plain")) for name in (model, self.models[0])
        ]
        with np.errstate(invalid="ignore"):
            return self._widened(interval(gains[0] - gains[1]))

    def recovered(self, model: str, column: Column) -> Interval:
        """Returns the share of what poor words lose against canonical ones that a way to choose wins back."""
        poor = Cell(model, "poor", "plain")
        won = self._difference(Cell(model, "poor", column), poor)
        lost = self._difference(Cell(model, "canonical", "plain"), poor)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = interval(won / lost)
            return _around(share.value, self.unseen_points() / abs(lost[0])) if share.low == share.high else share

    def _difference(self, cell: Cell, other: Cell) -> NDArray[np.float64]:
        # A resample in which the first model has no right answer makes both infinite.
        with np.errstate(invalid="ignore"):
            return self._relative(cell) - self._relative(other)

    def _relative(self, cell: Cell) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):  # a resample of few items may hold no right answer
            tasks = self.measured_tasks
            shares = [self.scores[cell, task.name] / self.scores[self.base, task.name] for task in tasks]
        # A resample on which a task does not exist has no average: `interval` leaves it out.
        if not shares:
            return np.full(1 + NUM_RESAMPLES, np.nan)
        mean: NDArray[np.float64] = _PERCENT * np.mean(shares, axis=0)
        return mean


def read_table(
    folder: Path,
    tasks: Sequence[Task],
    models: Sequence[str],
    *,
    seed: int,
    normalizer: Normalizer = "official",
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    notify: Callable[[str], None] = lambda notice: None,
) -> Table:
    """Scores what `runner.run` wrote.

    Args:
        folder: its folder.
        tasks: the benchmarks.
        models: the rows.
        seed: of the resamples.
        normalizer: of VQA accuracy.
        thresholds: that the rules of choosing an instruction compare with.
        notify: is told what a user should know.
    """
    times = [json.loads(line) for line in (folder / TIMES_FILE).read_text(encoding="utf-8").splitlines()]
    return table_of(
        read_records(folder),
        tasks,
        dict.fromkeys(models, thresholds),
        seed=seed,
        normalizer=normalizer,
        times=times,
        notify=notify,
    )


def table_of(
    everything: Sequence[Mapping[str, Any]],
    tasks: Sequence[Task],
    models: Mapping[str, Thresholds],
    *,
    seed: int,
    normalizer: Normalizer = "official",
    times: Iterable[Mapping[str, Any]] = (),
    notify: Callable[[str], None] = lambda notice: None,
) -> Table:
    """Scores records.

    Args:
        everything: the records, those of items that could not be read as well.
        tasks: the benchmarks.
        models: the rows, with the thresholds that the rules of choosing an instruction compare with.
        seed: of the resamples.
        normalizer: of VQA accuracy.
        times: what chunks of items took.
        notify: is told what a user should know.
    """
    # Without its picture in one cell an item counts in none: what is compared is paired item by item.
    skipped = {item_of(record): record["task"] for record in everything if record.get("status") == "error"}
    all_records = [record for record in everything if item_of(record) not in skipped]
    num_skipped = Counter(skipped.values())
    records, columns = _grouped(all_records), columns_of(all_records)
    words_of_records = {str(record["id"]).rsplit("/", 2)[1] for record in everything}
    all_words = [words for words in WORDS if words in words_of_records]
    cells = [Cell(model, words, column) for model in models for words in all_words for column in columns]
    # What CIDEr reads in any cell, references and answers, is tokenized together: one start of Java for the table.
    caption_tasks = {task.name for task in tasks if task.metric == "cider"}
    captions = (
        text
        for record in all_records
        if record["task"] in caption_tasks
        for text in (
            *record["references"],
            *(wording_of(record, column, models[model_of(record)])["answer"] for column in columns),
        )
    )
    rules = TextRules(normalizer=normalizer, captions=tokenized(captions, notify))
    scores: dict[tuple[Cell, str], NDArray[np.float64]] = {}
    lavis: dict[tuple[Cell, str], NDArray[np.float64]] = {}
    values: dict[tuple[Cell, str], NDArray[np.float64]] = {}
    labels: dict[str, NDArray[np.bool_]] = {}
    base, *_ = models
    sizes = {task.name: _size_of(task, records[base, "canonical", task.name], num_skipped) for task in tasks}
    for task in tasks:
        if not sizes[task.name].num_items:
            scores |= {(cell, task.name): np.full(1 + NUM_RESAMPLES, np.nan) for cell in cells}
            continue
        # One draw for all cells of a task, whose records are in one order: what is compared is paired item by item.
        rows = resampled_rows(sizes[task.name].num_items, seed)
        if task.metric == "roc_auc":
            labels[task.name] = are_positive(records[base, "canonical", task.name])
        by_values: dict[bytes, NDArray[np.float64]] = {}  # cells that chose the same answers are resampled once
        for cell in cells:
            words = "canonical" if cell.column == "always canonical" else cell.words
            cell_records = records[cell.model, words, task.name]
            answers = [wording_of(record, cell.column, models[cell.model])["answer"] for record in cell_records]
            values[cell, task.name] = item_values(task, cell_records, answers, rules)
            key = values[cell, task.name].tobytes()
            if key not in by_values:
                by_values[key] = task_scores(values[cell, task.name], rows, labels.get(task.name))
            scores[cell, task.name] = by_values[key]
            if task.metric == "accuracy":
                lavis[cell, task.name] = lavis_scores(cell_records, answers, rows)
    differing = {task for (cell, task), values in lavis.items() if values[0] != scores[cell, task][0]}
    lavis = {(cell, task): values for (cell, task), values in lavis.items() if task in differing}
    shares: dict[tuple[str, str], float] = {}  # of the items that are not left alone, by model and words
    for model, thresholds in models.items():
        for words in all_words:
            of_words = [record for task in tasks for record in records[model, words, task.name]]
            shares[model, words] = fmean(not is_sure(record, thresholds) for record in of_words) if of_words else 1.0
    return Table(
        tasks=tasks,
        models=list(models),
        words=all_words,
        columns=columns,
        scores=scores,
        lavis_scores=lavis,
        sizes=sizes,
        seconds=_seconds(times, cells, shares),
        values=values,
        item_places={
            task.name: {item_of(record): place for place, record in enumerate(records[base, "canonical", task.name])}
            for task in tasks
        },
        labels=labels,
        seed=seed,
        caption_tokenizer=rules.captions.tokenizer if rules.captions.tokens else None,
    )


def _around(value: float, spread: float) -> Interval:
    return Interval(value=value, low=value - spread, high=value + spread)


def _share_as_far(drawn: NDArray[np.float64]) -> float:
    """Returns which share of values lies as far from 0 as the first, which is one of the possible ones."""
    return float((np.abs(drawn) >= abs(drawn[0]) - 1e-9).mean())


def _size_of(task: Task, records: Sequence[Mapping[str, Any]], num_skipped: Mapping[str, int]) -> TaskSize:
    num_positive = int(are_positive(records).sum())
    smaller = min(num_positive, len(records) - num_positive) if task.metric == "roc_auc" else None
    return TaskSize(num_items=len(records), num_skipped=num_skipped[task.name], smaller_class=smaller)


def _grouped(records: Sequence[Mapping[str, Any]]) -> Records:
    groups: dict[tuple[str, Words, str], list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        model, words, _ = record["id"].rsplit("/", 2)
        groups[model, words, record["task"]].append(record)
    for group in groups.values():  # by id: the order of the file is that of the chunks, another for another batch size
        group.sort(key=lambda record: str(record["id"]))
    return groups


def _seconds(
    times: Iterable[Mapping[str, Any]], cells: Sequence[Cell], shares: Mapping[tuple[str, str], float]
) -> dict[Cell, float]:
    """Returns the mean time per item of every cell: the mean over the tasks of a chunk's median.

    The median, because the first chunk of a task compiles kernels and fills caches.
    """
    stages: dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for chunk in times:
        stages[chunk["model"], chunk["words"]][chunk["task"]].append(chunk)
    seconds = {}
    for cell in cells:
        words = "canonical" if cell.column == "always canonical" else cell.words
        share = dict.fromkeys(UNSURE_STAGES, shares[cell.model, words]) if cell.column == OPTIMIZED else {}
        medians = [
            sum(
                share.get(stage, 1.0) * float(np.median([chunk[stage] for chunk in chunks]))
                for stage in STAGES[cell.column]
            )
            for chunks in stages[cell.model, words].values()
        ]
        seconds[cell] = float(np.mean(medians)) if medians else float("nan")
    return seconds
