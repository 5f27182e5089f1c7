"""Gradient checkpointing changes the memory of a training, and not one bit of its numbers."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import tiny_models
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vlinstruct.backends.instructblip.configuration import LlamaConfig, T5Config
from vlinstruct.backends.instructblip.decoding import generate
from vlinstruct.backends.instructblip.language_model import Context, LanguageModel
from vlinstruct.backends.instructblip.llama import Llama
from vlinstruct.backends.instructblip.t5 import T5
from vlinstruct.settings import GenerationSettings

KINDS = ("t5", "llama")
T5_DEPTH, LLAMA_DEPTH = {"num_layers": 8, "num_decoder_layers": 8}, {"num_hidden_layers": 8}
WITH_DROPOUT = ("EncDecAttention.v", "SelfAttention.q", "wo", "v_proj", "down_proj")


class Batch:
    """Three rows of different length, and what a language model makes of them."""

    def __init__(self, language_model: LanguageModel) -> None:
        draw = torch.Generator().manual_seed(5)
        width = language_model.embed_tokens(torch.zeros(1, 1).long()).shape[-1]
        self.language_model = language_model
        self.inputs_embeds = torch.randn(3, 9, width, generator=draw)
        self.attention_mask = (torch.arange(9) >= torch.tensor([[0], [4], [2]])).long()
        self.target_ids = torch.randint(4, 98, (3, 6), generator=draw)

    def logits(self, inputs_embeds: Tensor | None = None) -> Tensor:
        if inputs_embeds is None:
            inputs_embeds = self.inputs_embeds.clone().requires_grad_()
        return self.language_model.target_logits(inputs_embeds, self.attention_mask, self.target_ids)

    def num_bytes(self, sizes: dict[int, int]) -> int:
        """Sums the sizes of memory, given by its address, that is no weight's and not this batch's."""
        lasting = [*self.language_model.parameters(), self.inputs_embeds, self.attention_mask, self.target_ids]
        addresses = {tensor.data_ptr() for tensor in lasting}
        return sum(size for address, size in sizes.items() if address not in addresses)

    def numbers(self, *, is_checkpointed: bool) -> dict[str, Tensor]:
        """Returns the logits, all gradients of a loss on them, and the random state that is left."""
        self.language_model.gradient_checkpointing = is_checkpointed
        self.language_model.zero_grad()
        torch.manual_seed(7)
        inputs_embeds = self.inputs_embeds.clone().requires_grad_()
        logits = self.logits(inputs_embeds)
        logits.log_softmax(-1)[..., 5].sum().backward()
        found = {"logits": logits.detach(), "inputs_embeds": inputs_embeds.grad, "random state": torch.get_rng_state()}
        return found | {name: parameter.grad for name, parameter in self.language_model.named_parameters()}


@pytest.fixture(params=KINDS)
def batch(request: pytest.FixtureRequest) -> Batch:
    return Batch(tiny_models.our_model(request.param, seed=3).language_model)


def _deep(kind: str) -> Batch:
    """Eight blocks per stack; frozen, as a language model is in training."""
    torch.manual_seed(0)
    if kind == "t5":
        return Batch(T5(T5Config.from_dict(tiny_models.T5_TEXT | T5_DEPTH)).requires_grad_(False))
    return Batch(Llama(LlamaConfig.from_dict(tiny_models.LLAMA_TEXT | LLAMA_DEPTH)).requires_grad_(False))


def _blocks(language_model: LanguageModel) -> list[nn.Module]:
    return [module for module in language_model.modules() if type(module).__name__ in language_model._no_split_modules]


def _add_dropout(language_model: LanguageModel) -> int:
    adapted = [name for name, _ in language_model.named_modules() if name.endswith(WITH_DROPOUT)]
    for name in adapted:
        language_model.set_submodule(name, nn.Sequential(language_model.get_submodule(name), nn.Dropout(0.3)))
    return len(adapted)


def test_checkpointing_changes_no_bit_of_logits_and_gradients(batch: Batch) -> None:
    kept, recomputed = batch.numbers(is_checkpointed=False), batch.numbers(is_checkpointed=True)
    assert kept["inputs_embeds"].any(dim=-1).equal(batch.attention_mask.bool())
    assert [name for name in kept if not torch.equal(kept[name], recomputed[name])] == []


def test_a_dropout_inside_a_block_drops_the_same_when_it_is_computed_again(batch: Batch) -> None:
    plain = batch.numbers(is_checkpointed=False)
    assert _add_dropout(batch.language_model.train()) >= 4
    kept, recomputed = batch.numbers(is_checkpointed=False), batch.numbers(is_checkpointed=True)
    assert not torch.equal(kept["logits"], plain["logits"])
    assert [name for name in kept if not torch.equal(kept[name], recomputed[name])] == []


def test_what_learns_inside_a_block_gets_its_gradient_though_the_inputs_need_none(batch: Batch) -> None:
    model = batch.language_model.requires_grad_(False)
    learning = [block.get_parameter(next(iter(block.state_dict()))).requires_grad_() for block in _blocks(model)]
    kept = torch.autograd.grad(batch.logits(batch.inputs_embeds).square().sum(), learning)
    model.gradient_checkpointing = True
    recomputed = torch.autograd.grad(batch.logits(batch.inputs_embeds).square().sum(), learning)
    assert all(one.any() and one.equal(other) for one, other in zip(kept, recomputed, strict=True))


def _saved_bytes(batch: Batch) -> int:
    """Returns the size of what autograd saves outside of checkpoints."""
    sizes = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = batch.logits()
    assert logits.requires_grad
    return batch.num_bytes(sizes)


class Results(TorchDispatchMode):
    """Knows the memory of all results that something still holds, be it autograd, a closure or a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: list[weakref.ref[torch.UntypedStorage]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
        self.storages += [weakref.ref(tensor.untyped_storage()) for tensor in tensors]
        return results

    def sizes(self) -> dict[int, int]:
        alive = [storage for reference in self.storages if (storage := reference()) is not None]
        return {storage.data_ptr(): storage.nbytes() for storage in alive}


def _held_bytes(batch: Batch) -> int:
    """Returns the size of all results that are there while the logits are."""
    with Results() as results:
        logits = batch.logits()
    assert logits.requires_grad
    return batch.num_bytes(results.sizes())


@pytest.mark.parametrize(
    ("kind", "measure", "factor"),
    [
        ("t5", _saved_bytes, 8),
        ("llama", _saved_bytes, 9),
        ("t5", _held_bytes, 4),  # less, for its cross-attentions' keys and values are inputs of blocks
        ("llama", _held_bytes, 7),
    ],
)
def test_checkpointing_keeps_a_fraction_until_the_backward_pass(
    kind: str, measure: Callable[[Batch], int], factor: int
) -> None:
    batch = _deep(kind)
    kept = measure(batch)
    batch.language_model.gradient_checkpointing = True
    assert 0 < measure(batch) * factor < kept


def test_a_checkpointed_pass_that_is_forgotten_leaves_nothing_behind(batch: Batch) -> None:
    batch.language_model.gradient_checkpointing = True
    batch.logits()  # T5 remembers its buckets
    with Results() as results:
        batch.logits()
    assert len(results.storages) > 100
    assert batch.num_bytes(results.sizes()) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_learns_inside_a_block_adds_nothing_to_what_is_kept(kind: str) -> None:
    batch = _deep(kind)
    batch.language_model.gradient_checkpointing = True
    frozen = _saved_bytes(batch)
    _add_dropout(batch.language_model.train())
    for block in _blocks(batch.language_model):
        for linear in (module for module in block.modules() if isinstance(module, nn.Linear)):
            linear.requires_grad_()
    assert _saved_bytes(batch) == frozen


@pytest.mark.parametrize(("is_checkpointed", "has_gradients", "passes"), [(0, 1, 1), (1, 1, 2), (1, 0, 1)])
def test_only_a_checkpointed_pass_with_gradients_runs_a_block_again(
    batch: Batch, is_checkpointed: int, has_gradients: int, passes: int
) -> None:
    blocks = _blocks(batch.language_model)
    ran: list[nn.Module] = []
    for block in blocks:
        block.register_forward_pre_hook(lambda block, _: ran.append(block))
    batch.language_model.gradient_checkpointing = bool(is_checkpointed)
    with torch.set_grad_enabled(bool(has_gradients)):
        logits = batch.logits()
    if has_gradients:
        logits.sum().backward()
    assert [ran.count(block) for block in blocks] == [passes] * len(blocks)


def test_a_pass_without_gradients_goes_round_checkpointing(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        plain = batch.logits()
        batch.language_model.gradient_checkpointing = True
        monkeypatch.setattr("vlinstruct.backends.instructblip.language_model.checkpoint", None)
        assert torch.equal(batch.logits(), plain)


def test_a_model_that_checkpoints_still_generates_from_its_caches(batch: Batch) -> None:
    context = Context(inputs_embeds=batch.inputs_embeds, attention_mask=batch.attention_mask, penalized_ids=((0,),) * 3)
    settings = GenerationSettings(max_new_tokens=8)
    text = generate(batch.language_model, context, settings, (1,))
    batch.language_model.gradient_checkpointing = True
    assert generate(batch.language_model, context, settings, (1,)) == text


def test_a_model_that_checkpoints_still_decodes_from_its_caches_while_gradients_are_on(batch: Batch) -> None:
    batch.language_model.gradient_checkpointing = True
    logits, state = batch.language_model.prefill(batch.inputs_embeds, batch.attention_mask)
    for step in batch.target_ids[:, :-1].split(1, dim=1):
        logits = torch.cat([logits, batch.language_model.decode(step, state)], dim=1)
    assert logits.requires_grad
    torch.testing.assert_close(logits, batch.logits())


def test_the_blocks_that_fsdp_wraps_are_all_checkpointed_blocks(batch: Batch) -> None:
    model = batch.language_model
    in_blocks = {parameter for block in _blocks(model) for parameter in block.parameters()}
    outside = {name for name, parameter in model.named_parameters() if parameter not in in_blocks}
    assert {type(block).__name__ for block in _blocks(model)} == set(model._no_split_modules)
    assert all(
        "norm" in name or "embed_tokens" in name or "lm_head" in name or name == "shared.weight" for name in outside
    )
