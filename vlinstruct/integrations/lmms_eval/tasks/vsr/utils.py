"""Visual Spatial Reasoning: the answer is "true" or "false", as the instruction asks; nothing else is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlinstruct.integrations.lmms_eval.task_parts import doc_to_visual
from vlinstruct.metrics.accuracy import is_exact_match

__all__ = ["doc_to_visual", "process_results"]


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Scores an answer.

    >>> process_results({"answer": "true"}, ["True."])
    {'accuracy': 1.0}
    """
    return {"accuracy": float(is_exact_match(results[0], doc["answer"]))}
