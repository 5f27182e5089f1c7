"""From records to the table: every task's score, averages relative to vanilla, intervals over resampled items.

A task's score is its metric over all items. Averages over tasks are of scores relative to the first model's plain
answers in canonical words, in percent, so that CIDEr, which is not bounded by 1, does not dominate. A resample draws
items of every task anew, the same for all cells (paired); CIDEr's document frequencies stay those of the whole set.

Legend: N items of a task, R resamples.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlinstruct.evaluation.columns import STAGES, Column, chosen, columns_of
from vlinstruct.evaluation.item import WORDS, Task, Words
from vlinstruct.evaluation.parts import RECORDS_FILE
from vlinstruct.evaluation.runner import TIMES_FILE
from vlinstruct.metrics.accuracy import is_exact_match, is_ranked_first
from vlinstruct.metrics.bootstrap import Interval
from vlinstruct.metrics.captions import Captions, CaptionTokenizer, tokenized
from vlinstruct.metrics.cider import cider
from vlinstruct.metrics.mrr import target_rank
from vlinstruct.metrics.roc_auc import roc_auc
from vlinstruct.metrics.vqa_accuracy import Normalizer, vqa_accuracy

NUM_RESAMPLES = 2000
_PERCENT = 100.0
_ANSWERS_PER_QUESTION = 10
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
        scores: by cell and task.
        seconds: per item, by cell.
        caption_tokenizer: what CIDEr's captions were tokenized by; None where no task has captions.
    """

    tasks: Sequence[Task]
    models: Sequence[str]
    words: Sequence[Words]
    columns: Sequence[Column]
    scores: Mapping[tuple[Cell, str], NDArray[np.float64]]
    seconds: Mapping[Cell, float]
    caption_tokenizer: CaptionTokenizer | None = None

    @property
    def base(self) -> Cell:
        """What everything is relative to."""
        return Cell(self.models[0], "canonical", "plain")

    def task_score(self, cell: Cell, task: str) -> Interval:
        """Returns a task's score, in the metric's own unit, 1 for all right."""
        return _interval(self.scores[cell, task])

    def average(self, cell: Cell) -> Interval:
        """Returns the average over tasks relative to the base, in percent."""
        return _interval(self._relative(cell))

    def difference(self, cell: Cell, other: Cell) -> Interval:
        """Returns by how many points a cell's average is above another's."""
        return _interval(self._relative(cell) - self._relative(other))

    def task_difference(self, cell: Cell, other: Cell, task: str) -> Interval:
        """Returns by how many points, relative to the base, a cell is above another on one task."""
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (self.scores[cell, task] - self.scores[other, task]) / self.scores[self.base, task]
        return _interval(_PERCENT * share)

    def interaction(self, model: str, words: Words, column: Column) -> Interval:
        """Returns what a way to choose gains with a model more than with the first one, in points."""
        gains = [
            self._relative(Cell(name, words, column)) - self._relative(Cell(name, words, "plain"))
            for name in (model, self.models[0])
        ]
        return _interval(gains[0] - gains[1])

    def recovered(self, model: str, column: Column) -> Interval:
        """Returns the share of what poor words lose against canonical ones that a way to choose wins back."""
        poor, best = self._relative(Cell(model, "poor", "plain")), self._relative(Cell(model, "canonical", "plain"))
        won = self._relative(Cell(model, "poor", column)) - poor
        with np.errstate(divide="ignore", invalid="ignore"):
            return _interval(won / (best - poor))

    def _relative(self, cell: Cell) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):  # a resample of few items may hold no right answer
            shares = [self.scores[cell, task.name] / self.scores[self.base, task.name] for task in self.tasks]
        mean: NDArray[np.float64] = _PERCENT * np.mean(shares, axis=0)
        return mean


@dataclass(frozen=True, kw_only=True)
class _Texts:
    """How texts are compared.

    Args:
        normalizer: of VQA accuracy.
        captions: CIDEr's, tokenized.
    """

    normalizer: Normalizer
    captions: Captions


def read_table(
    folder: Path,
    tasks: Sequence[Task],
    models: Sequence[str],
    *,
    seed: int,
    normalizer: Normalizer = "official",
    notify: Callable[[str], None] = lambda notice: None,
) -> Table:
    """Scores what `runner.run` wrote.

    Args:
        folder: its folder.
        tasks: the benchmarks.
        models: the rows.
        seed: of the resamples.
        normalizer: of VQA accuracy.
        notify: is told what a user should know.
    """
    written = read_records(folder)
    records, columns = _grouped(written), columns_of(written)
    asked = [words for words in WORDS if any(words == found for _, found, _ in records)]
    cells = [Cell(model, words, column) for model in models for words in asked for column in columns]
    texts = _Texts(normalizer=normalizer, captions=tokenized(_captions(tasks, written, columns), notify))
    scores: dict[tuple[Cell, str], NDArray[np.float64]] = {}
    for task in tasks:
        rows = _resamples(len(records[models[0], "canonical", task.name]), seed)
        for cell in cells:
            words = "canonical" if cell.column == "always canonical" else cell.words
            answered = records[cell.model, words, task.name]
            scores[cell, task.name] = _task_scores(task, answered, cell.column, rows, texts)
    seconds = _seconds(folder / TIMES_FILE, cells)
    return Table(
        tasks=tasks,
        models=models,
        words=asked,
        columns=columns,
        scores=scores,
        seconds=seconds,
        caption_tokenizer=texts.captions.tokenizer if texts.captions.tokens else None,
    )


def read_records(folder: Path) -> list[Mapping[str, Any]]:
    """Returns the records that `runner.run` wrote, in the order in which it did."""
    return [json.loads(line) for line in (folder / RECORDS_FILE).read_text(encoding="utf-8").splitlines()]


def _grouped(records: Sequence[Mapping[str, Any]]) -> Records:
    found: dict[tuple[str, Words, str], list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        model, words, _ = record["id"].rsplit("/", 2)
        found[model, words, record["task"]].append(record)
    for group in found.values():
        group.sort(key=lambda record: str(record["id"]))
    return found


def _captions(tasks: Sequence[Task], records: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> Iterator[str]:
    """Yields what CIDEr reads in any cell: references and answers."""
    names = {task.name for task in tasks if task.metric == "cider"}
    for record in records:
        if record["task"] in names:
            yield from record["references"]
            yield from (chosen(record, column)["answer"] for column in columns)


def _resamples(num_items: int, seed: int) -> NDArray[np.int64]:
    """Returns which items take part, (1 + R, N): first all of them, then what was drawn."""
    drawn = np.random.default_rng(seed).integers(num_items, size=(NUM_RESAMPLES, num_items))
    return np.concatenate([np.arange(num_items)[None], drawn])


def _task_scores(
    task: Task,
    records: Sequence[Mapping[str, Any]],
    column: Column,
    rows: NDArray[np.int64],
    texts: _Texts,
) -> NDArray[np.float64]:
    answers = [chosen(record, column)["answer"] for record in records]
    if task.metric != "roc_auc":
        values = np.array(_item_scores(task, records, answers, texts), dtype=np.float64)
        mean: NDArray[np.float64] = values[rows].mean(axis=1)
        return mean
    labels = np.array([record["references"] == ["yes"] for record in records])
    margins = np.array([_margin(record, nll) for record, nll in zip(records, answers, strict=True)])
    return np.array([_auc(labels[one], margins[one]) for one in rows])


def _item_scores(
    task: Task, records: Sequence[Mapping[str, Any]], answers: Sequence[Any], texts: _Texts
) -> list[float]:
    """Returns every item's share of a metric that is a mean over items."""
    references = [record["references"] for record in records]
    pairs = list(zip(answers, references, strict=True))
    if task.metric == "cider":
        tokens = texts.captions.tokens
        reference_tokens = [[tokens[text] for text in row] for row in references]
        return list(cider([tokens[text] for text in answers], reference_tokens).per_item)
    if task.metric == "accuracy":
        return [float(is_exact_match(answer, row[0])) for answer, row in pairs]
    if task.metric == "vqa_accuracy":
        # Where all people say the same, the record has it once.
        rows = [row if len(row) > 1 else row * _ANSWERS_PER_QUESTION for row in references]
        return [vqa_accuracy(answer, row, texts.normalizer) for answer, row in zip(answers, rows, strict=True)]
    targets = [record["candidates"].index(record["references"][0]) for record in records]
    if task.metric == "mrr":
        return [1 / target_rank(nll, target) for nll, target in zip(answers, targets, strict=True)]
    return [float(is_ranked_first(nll, target)) for nll, target in zip(answers, targets, strict=True)]


def _margin(record: Mapping[str, Any], nll: Sequence[float]) -> float:
    """Returns how much likelier "yes" is than "no", in nats per token."""
    by_text = dict(zip(record["candidates"], nll, strict=True))
    return by_text["no"] - by_text["yes"]


def _auc(labels: NDArray[np.bool_], margins: NDArray[np.float64]) -> float:
    """Returns the AUC; of a resample with one class only, one half: nothing is known then."""
    return 0.5 if labels.all() or not labels.any() else roc_auc(labels, margins)


def _seconds(path: Path, cells: Sequence[Cell]) -> dict[Cell, float]:
    """Returns the mean time per item of every cell: the mean over the tasks of a chunk's median."""
    stages: dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for line in path.read_text(encoding="utf-8").splitlines():
        taken = json.loads(line)
        stages[taken["model"], taken["words"]][taken["task"]].append(taken)
    seconds = {}
    for cell in cells:
        words = "canonical" if cell.column == "always canonical" else cell.words
        medians = [
            sum(float(np.median([one[stage] for one in chunks])) for stage in STAGES[cell.column])
            for chunks in stages[cell.model, words].values()
        ]
        seconds[cell] = float(np.mean(medians)) if medians else float("nan")
    return seconds


def _interval(values: NDArray[np.float64]) -> Interval:
    """Returns the value on the items themselves, and where 95 % of the resamples lie on which it exists."""
    resampled = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(resampled, (2.5, 97.5)) if len(resampled) else (np.nan, np.nan)
    return Interval(value=float(values[0]), low=float(low), high=float(high))
