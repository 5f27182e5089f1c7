"""The loss: cross-entropy of the answer's tokens and of nothing else (eq. 2), a sum in nats over a batch.

Legend: B samples, P prefix positions, L the language model's width, S target tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from vlinstruct.backends.instructblip.backend import InstructBlipBackend

_NO_TARGET = -100


def answer_nll(
    model: InstructBlipBackend,
    prefix: Tensor,
    prompt_ids: Sequence[Sequence[int]],
    target_ids: Sequence[Sequence[int]],
) -> Tensor:
    """Returns the negative log-likelihood of all answers' tokens, end tokens included, summed, in nats.

    Args:
        model: whose language model reads and writes.
        prefix: what stands in front of the prompts, (B, P, L).
        prompt_ids: B prompts.
        target_ids: B answers.
    """
    context = model.context_of_ids(prompt_ids, list(prefix))
    targets = [torch.tensor(ids) for ids in target_ids]
    fed = pad_sequence(targets, batch_first=True).to(model.device)
    logits = model.network.language_model.target_logits(context.inputs_embeds, context.attention_mask, fed)
    labels = pad_sequence(targets, batch_first=True, padding_value=_NO_TARGET).to(model.device)
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=_NO_TARGET, reduction="sum")
