"""What is done to logits before a token is chosen.

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlinstruct.errors import CheckpointError


def seen_tokens(seen_ids: Sequence[Sequence[int]], logits: Tensor) -> Tensor:
    """Returns (B, V) booleans: True where a row has seen the token."""
    seen = torch.zeros_like(logits, dtype=torch.bool)
    for row, ids in enumerate(seen_ids):
        seen[row, list(ids)] = True
    return seen


def penalize_repetition(scores: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Makes seen tokens less likely (Keskar et al., 2019): positive scores are divided, negative ones multiplied.

    Args:
        scores: logits or log-probabilities, (B, V).
        seen: (B, V), True where the row has seen the token.
        penalty: above 1 discourages, 1 changes nothing.

    >>> penalize_repetition(torch.tensor([[2.0, -2.0, 1.0]]), torch.tensor([[True, True, False]]), 2.0).tolist()
    [[1.0, -4.0, 1.0]]
    """
    if penalty == 1.0:
        return scores
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def require_finite(logits: Tensor) -> None:
    """Refuses NaN and infinity: a NaN would win every argmax silently.

    Raises:
        CheckpointError: with the code `non_finite_logits`.
    """
    if not bool(torch.isfinite(logits).all()):
        message = "the model computed values that are not finite. Its weights are damaged or --dtype is too narrow."
        raise CheckpointError(message, code="non_finite_logits")
