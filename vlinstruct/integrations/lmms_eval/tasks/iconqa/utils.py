"""IconQA: the option with the lowest loss is the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlinstruct.integrations.lmms_eval.task_parts import doc_to_visual, losses_of
from vlinstruct.metrics.accuracy import is_ranked_first

__all__ = ["doc_to_visual", "process_results"]


def process_results(doc: Mapping[str, Any], results: Sequence[tuple[float, bool] | str]) -> dict[str, float]:
    """Scores a ranking; `results` has every option's mean loss and whether it is greedy.

    >>> process_results({"answer": "2", "candidates": ["1", "2"]}, [(0.9, False), (0.4, True)])
    {'accuracy': 1.0}
    """
    return {"accuracy": float(is_ranked_first(losses_of(results), doc["candidates"].index(doc["answer"])))}
