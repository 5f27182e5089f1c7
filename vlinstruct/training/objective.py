"""The loss: cross-entropy of the answer's tokens and of nothing else (eq. 2), a sum in nats over a batch.

Legend: B samples, P prefix positions, D the Q-Former's width, L the language model's, S target tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from vlinstruct.data.conversations import TrainingSample
from vlinstruct.model.vlm import VisionLanguageModel

_NO_TARGET = -100


def answer_nll(model: VisionLanguageModel, features: Tensor, samples: Sequence[TrainingSample]) -> Tensor:
    """Returns the negative log-likelihood of all answers' tokens, end tokens included, summed, in nats.

    Args:
        model: whose projection learns.
        features: what the projection reads, (B, P, D).
        samples: B.
    """
    projected = model.model.language_projection(features.to(model.device).float()).to(model.dtype)  # (B, P, L)
    context = model.context([sample.prompt for sample in samples], list(projected))
    targets = [torch.tensor(model.tokenizer.target_ids(sample.answer), device=model.device) for sample in samples]
    target_ids = pad_sequence(targets, batch_first=True)
    logits = model.model.language_model.target_logits(context.inputs_embeds, context.attention_mask, target_ids)
    labels = pad_sequence(targets, batch_first=True, padding_value=_NO_TARGET)
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=_NO_TARGET, reduction="sum")
