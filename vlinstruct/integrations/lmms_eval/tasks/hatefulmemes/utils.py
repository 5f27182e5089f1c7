"""Hateful Memes: the area under the ROC curve of how much likelier "yes" is than "no"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlinstruct.integrations.lmms_eval.task_parts import doc_to_visual, losses_of
from vlinstruct.metrics.roc_auc import roc_auc

__all__ = ["area_under_curve", "doc_to_visual", "process_results"]


def process_results(doc: Mapping[str, Any], results: Sequence[tuple[float, bool] | str]) -> dict[str, dict[str, float]]:
    """Returns what the area is made of; `results` has the mean loss of each of the options "yes" and "no".

    No field is called `score`: lmms-eval would print a standard error of its mean beside the area.

    >>> process_results({"answer": "yes", "candidates": ["yes", "no"]}, [(0.25, True), (1.0, False)])
    {'roc_auc': {'is_hateful': 1, 'lead_of_yes': 0.75}}
    """
    losses = dict(zip(doc["candidates"], losses_of(results), strict=True))
    return {"roc_auc": {"is_hateful": int(doc["answer"] == "yes"), "lead_of_yes": losses["no"] - losses["yes"]}}


def area_under_curve(items: Sequence[Mapping[str, float]]) -> float:
    """Returns the area over all documents.

    Raises:
        DataError: all of them are hateful, or none is.

    >>> area_under_curve([{"is_hateful": 1, "lead_of_yes": 0.5}, {"is_hateful": 0, "lead_of_yes": -0.5}])
    1.0
    """
    return roc_auc([item["is_hateful"] for item in items], [item["lead_of_yes"] for item in items])
