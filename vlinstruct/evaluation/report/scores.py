"""From a task's answers to its metric, on the items themselves and on every resample of them.

Legend: N items of a task, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlinstruct.evaluation.benchmark import Task
from vlinstruct.metrics.accuracy import is_exact_match, is_ranked_first, target_rank
from vlinstruct.metrics.captions import Captions
from vlinstruct.metrics.cider import cider
from vlinstruct.metrics.roc_auc import roc_auc
from vlinstruct.metrics.vqa_accuracy import Normalizer, vqa_accuracy

_ANSWERS_PER_QUESTION = 10


@dataclass(frozen=True, kw_only=True)
class TextRules:
    """How texts are compared.

    Args:
        normalizer: of VQA accuracy.
        captions: CIDEr's, tokenized.
    """

    normalizer: Normalizer
    captions: Captions


def task_scores(
    task: Task,
    records: Sequence[Mapping[str, Any]],
    answers: Sequence[Any],
    rows: NDArray[np.int64],
    rules: TextRules,
) -> NDArray[np.float64]:
    """Returns a task's metric, 1 for all right, (1 + R,).

    Args:
        task: the benchmark.
        records: an item's each, N, with its references and candidates.
        answers: of the instruction that was chosen, N: a text, or the candidates' nats per token.
        rows: which items each resample has, (1 + R, N).
        rules: how texts are compared.
    """
    if task.metric != "roc_auc":
        values = np.array(_item_scores(task, records, answers, rules), dtype=np.float64)
        mean: NDArray[np.float64] = values[rows].mean(axis=1)
        return mean
    # The one metric that is no mean over items: every resample has its own area.
    labels = np.array([record["references"] == ["yes"] for record in records])
    by_text = [dict(zip(record["candidates"], nll, strict=True)) for record, nll in zip(records, answers, strict=True)]
    margins = np.array([nll["no"] - nll["yes"] for nll in by_text])  # how much likelier "yes" is, in nats per token
    areas = []
    for resample in rows:
        is_hateful = labels[resample]
        # A resample of one class only has no area. Chance, one half, rather than none: NaN would drop the resample from
        # the average over tasks as well.
        has_both = is_hateful.any() and not is_hateful.all()
        areas.append(roc_auc(is_hateful, margins[resample]) if has_both else 0.5)
    return np.array(areas)


def _item_scores(
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
    if task.metric == "vqa_accuracy":
        # Where all people say the same, the record has it once.
        ten_each = [row if len(row) > 1 else row * _ANSWERS_PER_QUESTION for row in references]
        return [vqa_accuracy(answer, row, rules.normalizer) for answer, row in zip(answers, ten_each, strict=True)]
    targets = [record["candidates"].index(record["references"][0]) for record in records]
    if task.metric == "mrr":
        return [1 / target_rank(nll, target) for nll, target in zip(answers, targets, strict=True)]
    return [float(is_ranked_first(nll, target)) for nll, target in zip(answers, targets, strict=True)]
