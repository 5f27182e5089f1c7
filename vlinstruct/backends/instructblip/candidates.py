"""The likelihood of given texts: how an instruction is scored and how offered answers are ranked.

Legend: B rows, K candidates of all rows together, S target tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlinstruct.backends.instructblip.language_model import Context, LanguageModel


def target_nll(language_model: LanguageModel, context: Context, targets: Sequence[Sequence[int]]) -> list[list[float]]:
    """Scores one target per row (eq. 3 before its mean).

    Args:
        language_model: the model.
        context: what it reads before the target.
        targets: per row the target's ids, end token included.

    Returns:
        Per row the negative log-likelihood of every token, in nats; padding never counts.
    """
    target_ids = _pad_right(targets, context.inputs_embeds.device)
    logits = language_model.target_logits(context.inputs_embeds, context.attention_mask, target_ids)
    return _token_nll(logits, target_ids, targets)


def candidate_nll(
    language_model: LanguageModel, context: Context, candidates: Sequence[Sequence[Sequence[int]]]
) -> list[list[list[float]]]:
    """Scores several targets per row; the row's context is read once for all of them.

    Args:
        language_model: the model.
        context: what it reads before the target.
        candidates: per row its candidates, each as ids with the end token.

    Returns:
        Per row, per candidate the negative log-likelihood of every token, in nats.
    """
    device = context.inputs_embeds.device
    targets = [target for row in candidates for target in row]
    rows = torch.tensor([index for index, row in enumerate(candidates) for _ in row], device=device)
    target_ids = _pad_right(targets, device)
    first_logits, state = language_model.prefill(context.inputs_embeds, context.attention_mask)
    state.select(rows)
    logits = first_logits[rows]  # (K, 1, V)
    if target_ids.shape[1] > 1:
        logits = torch.cat([logits, language_model.decode(target_ids[:, :-1], state)], dim=1)
    scores = iter(_token_nll(logits, target_ids, targets))
    return [[next(scores) for _ in row] for row in candidates]


def _pad_right(targets: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    return pad_sequence([torch.tensor(target, dtype=torch.long, device=device) for target in targets], batch_first=True)


def _token_nll(logits: Tensor, target_ids: Tensor, targets: Sequence[Sequence[int]]) -> list[list[float]]:
    log_probs = logits.float().log_softmax(dim=-1)
    nll = -log_probs.gather(2, target_ids[..., None])[..., 0]
    return [row[: len(target)] for row, target in zip(nll.tolist(), targets, strict=True)]
