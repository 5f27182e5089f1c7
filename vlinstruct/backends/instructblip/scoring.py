"""The likelihood of given texts: how an instruction is scored (eq. 3) and how offered answers are ranked.

LAVIS sums these losses for T5 and averages them over the padded length for Llama, so that its ranking depends on what
else is in the batch. Here every token has its nats, padding has none, and who wants a mean divides by the tokens.

Legend: B rows, N targets of all rows together, S target tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from vlinstruct.backends.decoding import token_nll
from vlinstruct.backends.instructblip.language_model import Context, LanguageModel, Reader


def target_nll(reader: Reader, context: Context, targets: Sequence[Sequence[Sequence[int]]]) -> list[list[list[float]]]:
    """Scores targets by teacher forcing: eq. 3 before its mean.

    Args:
        reader: the language model.
        context: what it reads before a target.
        targets: per row its targets, each as ids, the end token among them where it counts.

    Returns:
        Per row, per target the negative log-likelihood of every token, in nats.
    """
    device = context.inputs_embeds.device
    flat = [torch.tensor(ids, dtype=torch.long, device=device) for row in targets for ids in row]
    target_ids = pad_sequence(flat, batch_first=True)  # (N, S); what is right of a target does not change its logits
    if all(len(row) == 1 for row in targets):
        # One target per row is one pass over context and target: half the passes of reading the context first.
        logits = reader.target_logits(context.inputs_embeds, context.attention_mask, target_ids)
    else:
        # Several share their row's context: picture and prompt are read once, and their keys and values repeated. 100
        # answers of mini are ranked 9 times as fast as one by one.
        assert isinstance(reader, LanguageModel)  # whose states rows can be selected of
        first_logits, state = reader.prefill(context.inputs_embeds, context.attention_mask)
        rows = torch.tensor([place for place, row in enumerate(targets) for _ in row], device=device)
        state.select(rows)
        logits = first_logits[rows]  # (N, 1, V)
        if target_ids.shape[1] > 1:
            logits = torch.cat([logits, reader.decode(target_ids[:, :-1], state)], dim=1)  # (N, S, V)
    nll = iter(token_nll(logits, target_ids).tolist())
    return [[next(nll)[: len(ids)] for ids in row] for row in targets]
