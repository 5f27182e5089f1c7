"""From a task's answers to its metric, on the items themselves and on every resample of them.

Legend: N items of a task, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlinstruct.evaluation.benchmark import Task
from vlinstruct.metrics.accuracy import is_exact_match, is_ranked_first, target_rank
from vlinstruct.metrics.bootstrap import Interval, interval, wilson
from vlinstruct.metrics.captions import Captions
from vlinstruct.metrics.cider import MAX_CIDER, cider
from vlinstruct.metrics.roc_auc import roc_auc
from vlinstruct.metrics.vqa_accuracy import Normalizer, is_lavis_match, vqa_accuracy

_ANSWERS_PER_QUESTION = 10


IntervalMethod = Literal["wilson", "bootstrap", "none"]


@dataclass(frozen=True, kw_only=True)
class TaskSize:
    """Of how many items a task's metric is.

    Args:
        num_items: those that were answered with every model in all kinds of words.
        num_skipped: those whose pictures could not be read.
        smaller_class: of a metric that needs two classes, how many items the smaller one has; None of others.
    """

    num_items: int
    num_skipped: int = 0
    smaller_class: int | None = None


@dataclass(frozen=True, kw_only=True)
class TextRules:
    """How texts are compared.

    Args:
        normalizer: of VQA accuracy.
        captions: CIDEr's, tokenized.
    """

    normalizer: Normalizer
    captions: Captions


def item_values(
    task: Task, records: Sequence[Mapping[str, Any]], answers: Sequence[Any], rules: TextRules
) -> NDArray[np.float64]:
    """Returns what every item has of a task's metric, (N,): its score, or what it is ranked by where that is an area.

    Args:
        task: the benchmark.
        records: an item's each, N, with its references and candidates.
        answers: of the instruction that was chosen, N: a text, or the candidates' nats per token.
        rules: how texts are compared.
    """
    if task.metric != "roc_auc":
        return np.array(item_scores(task, records, answers, rules), dtype=np.float64)
    by_text = [dict(zip(record["candidates"], nll, strict=True)) for record, nll in zip(records, answers, strict=True)]
    return np.array([nll["no"] - nll["yes"] for nll in by_text])  # how much likelier "yes" is, in nats per token


def are_positive(records: Sequence[Mapping[str, Any]]) -> NDArray[np.bool_]:
    """Says of every item whether an area counts it as positive, (N,)."""
    return np.array([record["references"] == ["yes"] for record in records], dtype=np.bool_)


def task_scores(
    values: NDArray[np.float64], rows: NDArray[np.int64], labels: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Returns a task's metric, 1 for all right, (1 + R,).

    Args:
        values: what `item_values` returned, (N,).
        rows: which items each resample has, (1 + R, N).
        labels: which items are positive, (N,), where the metric is an area.
    """
    if labels is None:
        mean: NDArray[np.float64] = values[rows].mean(axis=1)
        return mean
    # The one metric that is no mean over items: every resample has its own area. One of a single class has none: a
    # made-up half would draw the mean to chance, and tell 0.500 of a benchmark that has not been measured.
    areas = []
    for resample in rows:
        is_positive = labels[resample]
        has_both = is_positive.any() and not is_positive.all()
        areas.append(roc_auc(is_positive, values[resample]) if has_both else np.nan)
    return np.array(areas)


def task_interval(task: Task, scores: NDArray[np.float64], sizes: TaskSize) -> tuple[Interval, IntervalMethod]:
    """Returns a task's metric with its interval, and how that was found.

    Args:
        task: the benchmark.
        scores: what `task_scores` returned, (1 + R,).
        sizes: of how many items.
    """
    resampled = interval(scores)
    if not np.isfinite(resampled.value):
        return resampled, "none"
    if task.metric in ("accuracy", "ranked_accuracy"):
        return wilson(resampled.value, sizes.num_items), "wilson"
    # Values of other metrics spread less than shares do, so that Wilson's interval is wide enough for them, too; it is
    # taken where resamples say nothing because all items are alike. An area rests on its smaller class.
    if resampled.low == resampled.high:
        largest = MAX_CIDER if task.metric == "cider" else 1.0
        found = wilson(resampled.value / largest, sizes.smaller_class or sizes.num_items)
        return Interval(value=resampled.value, low=largest * found.low, high=largest * found.high), "wilson"
    return resampled, "bootstrap"


def item_scores(
    task: Task, records: Sequence[Mapping[str, Any]], answers: Sequence[Any], rules: TextRules
) -> list[float]:
    """Returns every item's share of a metric that is a mean over items."""
    references = [record["references"] for record in records]
    pairs = list(zip(answers, references, strict=True))
    if task.metric == "cider":
        tokens = rules.captions.tokens
        reference_tokens = [[tokens[text] for text in row] for row in references]
        return list(cider([tokens[text] for text in answers], reference_tokens).per_item)
    if task.metric == "accuracy":
        return [float(is_exact_match(answer, row[0])) for answer, row in pairs]
    if task.metric not in ("vqa_accuracy", "mrr", "ranked_accuracy"):
        raise AssertionError(f"nothing scores the metric {task.metric}")
    if task.metric == "vqa_accuracy":
        # Where all people say the same, the record has it once.
        ten_each = [row if len(row) > 1 else row * _ANSWERS_PER_QUESTION for row in references]
        return [vqa_accuracy(answer, row, rules.normalizer) for answer, row in zip(answers, ten_each, strict=True)]
    targets = [target_of(record) for record in records]
    if task.metric == "mrr":
        return [1 / target_rank(nll, target) for nll, target in zip(answers, targets, strict=True)]
    return [float(is_ranked_first(nll, target)) for nll, target in zip(answers, targets, strict=True)]


def target_of(record: Mapping[str, Any]) -> int:
    """Returns the place of the right candidate; by its text only where the item did not say it."""
    place: int = record["target"] if "target" in record else record["candidates"].index(record["references"][0])
    return place


def lavis_scores(
    records: Sequence[Mapping[str, Any]], answers: Sequence[str], rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Returns exact-match accuracy with LAVIS' normalisation, which InstructBLIP's figures have, (1 + R,)."""
    pairs = zip(answers, records, strict=True)
    values = np.array([float(is_lavis_match(answer, record["references"][0])) for answer, record in pairs])
    mean: NDArray[np.float64] = values[rows].mean(axis=1)
    return mean
