"""CMAA is the paper's eq. 1, to the last digits, whatever the padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vlinstruct.backends.instructblip.cmaa import cross_modal_alignment_attention, with_alignment


def eq_1(query_embeds: np.ndarray, text_embeds: np.ndarray) -> np.ndarray:
    """U_mm = softmax(E_que E_text^T) E_text, read from the paper for one row, in float64."""
    logits = query_embeds @ text_embeds.T
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (weights / weights.sum(axis=1, keepdims=True)) @ text_embeds


def batch(*, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    queries = torch.randn(3, 4, 8, generator=draw, dtype=torch.float64)
    text = torch.randn(3, 6, 8, generator=draw, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    return queries.to(dtype), text.to(dtype), mask


def test_cmaa_equals_a_numpy_reading_of_eq_1() -> None:
    queries, text, mask = batch()
    ours = cross_modal_alignment_attention(queries, text, mask)
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        theirs = eq_1(queries[row].numpy(), text[row, :length].numpy())
        np.testing.assert_allclose(ours[row].numpy(), theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize("garbage", [0.0, 1e30, torch.inf, torch.nan])
def test_padding_does_not_change_cmaa(garbage: float) -> None:
    queries, text, mask = batch()
    clean = cross_modal_alignment_attention(queries, text, mask)
    dirty = text.masked_fill(~mask.bool()[..., None], garbage)
    assert torch.equal(cross_modal_alignment_attention(queries, dirty, mask), clean)
    wider = torch.cat([dirty, torch.full_like(text[:, :2], garbage)], dim=1)
    wider_mask = torch.cat([mask, torch.zeros_like(mask[:, :2])], dim=1)
    torch.testing.assert_close(cross_modal_alignment_attention(queries, wider, wider_mask), clean, atol=1e-12, rtol=0)


def test_a_batch_equals_one_by_one() -> None:
    queries, text, mask = batch()
    together = cross_modal_alignment_attention(queries, text, mask)
    alone = [
        cross_modal_alignment_attention(*(part[row : row + 1] for part in (queries, text, mask))) for row in range(3)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-12, rtol=0)


def test_the_softmax_runs_in_float32_for_narrow_types() -> None:
    queries, text, mask = batch(dtype=torch.bfloat16)
    wide = cross_modal_alignment_attention(queries.float(), text.float(), mask)
    narrow = cross_modal_alignment_attention(queries, text, mask)
    assert narrow.dtype == torch.bfloat16
    assert torch.equal(narrow, wide.to(torch.bfloat16))


def test_the_aligned_tokens_follow_the_queries() -> None:
    queries, text, mask = batch()
    joined = with_alignment(queries, text, mask)
    assert torch.equal(joined[:, :4], queries)
    assert torch.equal(joined[:, 4:], cross_modal_alignment_attention(queries, text, mask))
