"""Visual Dialog: how far up the right answer stands among the offered ones, by their loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlinstruct.integrations.lmms_eval.task_parts import doc_to_visual, losses_of
from vlinstruct.metrics.accuracy import mean_reciprocal_rank, target_rank

__all__ = ["doc_to_visual", "process_results"]

_RECALLS = (1, 5, 10)


def process_results(doc: Mapping[str, Any], results: Sequence[tuple[float, bool] | str]) -> dict[str, float]:
    """Scores a ranking; `results` has every answer's mean loss and whether it is greedy.

    The means over the documents are the metrics, so that lmms-eval's standard errors are those of a mean.

    >>> doc = {"answer": "no", "candidates": ["yes", "no"]}
    >>> process_results(doc, [(0.4, True), (0.9, False)])
    {'mrr': 0.5, 'recall_at_1': 0.0, 'recall_at_5': 1.0, 'recall_at_10': 1.0}
    """
    rank = target_rank(losses_of(results), doc["candidates"].index(doc["answer"]))
    recalls = {f"recall_at_{most}": float(rank <= most) for most in _RECALLS}
    return {"mrr": mean_reciprocal_rank([rank]), **recalls}
