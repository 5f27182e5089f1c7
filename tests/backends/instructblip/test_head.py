"""A wide head turned round gives the logits of its plain product."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vlinstruct.backends.instructblip.language_model import Head

WIDTH, VOCABULARY = 128, 32_128


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 5), (2, 16), (1, 33)])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_turned_round_equals_plain(shape: tuple[int, int], num_threads: int) -> None:
    torch.manual_seed(0)
    head, hidden = Head(WIDTH, VOCABULARY, bias=False), torch.randn(*shape, WIDTH, requires_grad=True)
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        logits = head(hidden)
        plain = nn.functional.linear(hidden, head.weight)
        torch.testing.assert_close(logits, plain, atol=1e-5, rtol=1e-5)
        assert logits.is_contiguous()
        ours, theirs = (torch.autograd.grad(given.square().sum(), hidden)[0] for given in (logits, plain))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
