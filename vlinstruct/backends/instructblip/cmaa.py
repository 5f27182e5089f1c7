"""Cross-Modal Alignment Attention (VisLingInstruct section 3.1, eq. 1): the queries attend to the instruction's tokens.

    U_mm = softmax(E_que E_text^T) E_text

InstructBLIP throws E_text away; CMAA keeps it. As in the paper there is neither a scale nor a learned weight, and
U_mm is appended to the queries along the token axis: the language model sees 2Q projected tokens in place of Q.

Legend: B rows, Q queries, T instruction tokens, D the Q-Former's width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def cross_modal_alignment_attention(
    query_embeds: Tensor, text_embeds: Tensor, attention_mask: Tensor, values: Tensor | None = None
) -> Tensor:
    """Computes U_mm (eq. 1).

    [CLS] and [SEP] take part like any other token. The softmax runs in float32 at least: the logits are sums of D
    products without a scale, and bfloat16 would make close ones equal.

    Args:
        query_embeds: E_que, (B, Q, D).
        text_embeds: E_text, (B, T, D).
        attention_mask: (B, T), nonzero where a token is no padding; padding never counts. Every row has a token.
        values: what is summed, (B, T, D); E_text itself where None, as in the paper.

    Returns:
        U_mm, (B, Q, D), in the dtype of `query_embeds`.

    >>> one_token = torch.tensor([[[5.0, 7.0]]])
    >>> cross_modal_alignment_attention(torch.ones(1, 3, 2), one_token, torch.ones(1, 1))[0, 2].tolist()
    [5.0, 7.0]
    """
    weights = alignment_weights(query_embeds, text_embeds, attention_mask)
    summed = (text_embeds if values is None else values).to(weights.dtype)
    # 0 * NaN would let a padded position through
    return (weights @ summed.masked_fill(~attention_mask.bool()[..., None], 0.0)).to(query_embeds.dtype)


def alignment_weights(query_embeds: Tensor, text_embeds: Tensor, attention_mask: Tensor) -> Tensor:
    """Returns eq. 1's softmax: which token each query reads, (B, Q, T), every query's sum 1, in float32 at least.

    Args:
        query_embeds: E_que, (B, Q, D).
        text_embeds: E_text, (B, T, D).
        attention_mask: (B, T), nonzero where a token is no padding.
    """
    accumulate = torch.promote_types(query_embeds.dtype, torch.float32)
    padding = ~attention_mask.bool()
    text = text_embeds.to(accumulate).masked_fill(padding[..., None], 0.0)
    logits = (query_embeds.to(accumulate) @ text.mT).masked_fill(padding[:, None, :], -torch.inf)
    return logits.softmax(dim=-1)


class CrossModalAlignmentAttention(nn.Module):
    """CMAA with learned projections, which the paper does not have: softmax(E_que Q (E_text K)^T) E_text V.

    All three begin as the identity, so that training starts from the paper's formula.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width, bias=False) for _ in range(3))
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.eye_(projection.weight)

    def forward(self, query_embeds: Tensor, text_embeds: Tensor, attention_mask: Tensor) -> Tensor:
        """Computes U_mm in its weights' dtype, with `cross_modal_alignment_attention`'s arguments and shapes."""
        text = self._typed(text_embeds, attention_mask)
        return cross_modal_alignment_attention(*self._projected(query_embeds, text), attention_mask, self.v_proj(text))

    def weights(self, query_embeds: Tensor, text_embeds: Tensor, attention_mask: Tensor) -> Tensor:
        """Returns the softmax alone, with `alignment_weights`' arguments and shape."""
        text = self._typed(text_embeds, attention_mask)
        return alignment_weights(*self._projected(query_embeds, text), attention_mask)

    def _typed(self, text_embeds: Tensor, attention_mask: Tensor) -> Tensor:
        text = text_embeds.to(self.q_proj.weight.dtype)
        return text.masked_fill(~attention_mask.bool()[..., None], 0.0)

    def _projected(self, query_embeds: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        return self.q_proj(query_embeds.to(text.dtype)), self.k_proj(text)


def with_alignment(
    query_embeds: Tensor, text_embeds: Tensor, attention_mask: Tensor, cmaa: CrossModalAlignmentAttention | None = None
) -> Tensor:
    """Returns the queries followed by U_mm, (B, 2Q, D): what the projection reads under EMA (algorithm 1).

    Args:
        query_embeds: E_que, (B, Q, D).
        text_embeds: E_text, (B, T, D).
        attention_mask: (B, T), nonzero where a token is no padding.
        cmaa: None for the paper's formula.
    """
    attend = cmaa or cross_modal_alignment_attention
    aligned = attend(query_embeds, text_embeds, attention_mask).to(query_embeds.dtype)
    return torch.cat([query_embeds, aligned], dim=1)
