"""The loss of answers is cross-entropy over all logits, of which only some are ever there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vlinstruct.backends.instructblip import language_model as language_models
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.t5 import T5
from vlinstruct.training.examples import answer_nll

from .training_set import model

PROMPTS, ANSWERS = [[3, 4, 5, 6], [7, 8], [9]], [[4, 5, 1], [6, 1], [5, 8, 9, 11, 12, 1]]


@pytest.fixture(params=["t5", "llama"])
def backend(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> InstructBlipBackend:
    backend = model(tiny_folders[request.param])
    if isinstance(backend.network.language_model, T5):
        backend.network.language_model.output_scale = 0.5  # the first T5's way, which a loss must not forget
    return backend


def prefixes(backend: InstructBlipBackend) -> Tensor:
    width = backend.network.config.text_config.hidden_size
    draw = torch.Generator().manual_seed(0)
    return torch.randn(3, 8, width, generator=draw).to(backend.dtype).requires_grad_()


def loss_and_gradient(backend: InstructBlipBackend, numbers: list[int]) -> tuple[Tensor, Tensor]:
    prefix = prefixes(backend)
    nll = answer_nll(backend, prefix[numbers], [PROMPTS[i] for i in numbers], [ANSWERS[i] for i in numbers])
    (nll / 11).backward()
    assert prefix.grad is not None
    return nll.detach(), prefix.grad


def plain_loss_and_gradient(backend: InstructBlipBackend) -> tuple[Tensor, Tensor]:
    """Of all logits, padding's too, as they are when a text is drafted."""
    prefix = prefixes(backend)
    context = backend.context_of_ids(PROMPTS, list(prefix))
    labels = torch.tensor([answer + [-100] * (6 - len(answer)) for answer in ANSWERS])
    logits, _ = backend.network.language_model.prefill(
        context.inputs_embeds, context.attention_mask, labels[:, :-1].clamp(min=0)
    )
    nll = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="sum")
    (nll / 11).backward()
    assert prefix.grad is not None
    return nll.detach(), prefix.grad


def distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.float() - theirs.float()).norm() / theirs.float().norm())


def test_loss_and_gradient_are_those_of_all_logits(backend: InstructBlipBackend) -> None:
    for ours, plain in zip(loss_and_gradient(backend, [0, 1, 2]), plain_loss_and_gradient(backend), strict=True):
        assert ours.dtype == plain.dtype
        assert distance(ours, plain) < 1e-6


def test_bfloat16_rounds_loss_and_gradient_as_with_all_logits(backend: InstructBlipBackend) -> None:
    exact = plain_loss_and_gradient(backend)
    backend.network.bfloat16()
    ours, plain = loss_and_gradient(backend, [0, 1, 2]), plain_loss_and_gradient(backend)
    for ours_rounded, plain_rounded, unrounded in zip(ours, plain, exact, strict=True):
        assert ours_rounded.dtype == plain_rounded.dtype
        # 0.1 % of the loss, 3 to 6 % of the gradient: what the blocks round.
        assert distance(ours_rounded, unrounded) < 1.1 * distance(plain_rounded, unrounded)


@pytest.mark.parametrize("chunk", [1, 4, 11])
def test_neither_chunks_nor_the_rows_beside_change_it(
    backend: InstructBlipBackend, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, gradient = loss_and_gradient(backend, [0, 1, 2])
    monkeypatch.setattr(language_models, "LOSS_CHUNK", chunk)
    single = [loss_and_gradient(backend, [number]) for number in range(3)]
    chunked, summed = (
        loss_and_gradient(backend, [0, 1, 2]),
        [torch.stack(parts).sum(0) for parts in zip(*single, strict=True)],
    )
    for place, exact in enumerate((whole, gradient)):
        assert distance(chunked[place], exact) < 1e-6
        assert distance(summed[place], exact) < 4e-6  # of products of other shapes all the way through the model


@contextmanager
def positions_read(backend: InstructBlipBackend) -> Iterator[list[int]]:
    """Records how many positions the head reads at once."""
    counts: list[int] = []
    head = backend.network.language_model.lm_head
    handle = head.register_forward_hook(lambda module, inputs, logits: counts.append(logits.shape[:-1].numel()))
    yield counts
    handle.remove()


@pytest.mark.parametrize("is_learning", [True, False])
def test_the_head_reads_a_chunk_of_answers_at_once_and_no_padding(
    backend: InstructBlipBackend, is_learning: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_models, "LOSS_CHUNK", 4)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.shape[-1] if tensor.ndim > 1 else 0)
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with positions_read(backend) as counts, torch.set_grad_enabled(is_learning), hooks:
        answer_nll(backend, prefixes(backend), PROMPTS, ANSWERS)
    assert counts == [4, 4, 3]
    assert backend.network.config.text_config.vocab_size not in kept


def test_a_head_that_learns_gets_its_gradient(backend: InstructBlipBackend) -> None:
    head = backend.network.language_model.lm_head.requires_grad_()
    gradients = []
    for computed in (partial(loss_and_gradient, numbers=[0, 1, 2]), plain_loss_and_gradient):
        pair = computed(backend)
        assert head.weight.grad is not None
        gradients.append((*pair, head.weight.grad))
        head.weight.grad = None
    for ours, plain in zip(*gradients, strict=True):
        assert distance(ours, plain) < 1e-6
