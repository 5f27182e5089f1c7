import pytest
import torch
from torch import Tensor

from pretrain_mini.architecture import mini_config, new_model
from pretrain_mini.encoder_attention import GUIDED_LAYERS
from pretrain_mini.guides import COPYING_LAYERS, LlamaGuide, Recorded
from vlinstruct.backends.instructblip.llama import Llama

EMBEDS, TARGETS = torch.randn(2, 7, 160), torch.randint(3, 30, (2, 4))
MASK = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])


@pytest.fixture(scope="module")
def llama() -> Llama:
    model = new_model(mini_config(30, 30, "llama"), seed=0).language_model
    assert isinstance(model, Llama)
    return model.requires_grad_(False)


def _recorded(llama: Llama, embeds: Tensor, mask: Tensor, targets: Tensor) -> tuple[Tensor, Recorded]:
    guide = LlamaGuide(llama)
    with guide.recording() as recorded:
        logits = guide.target_logits(embeds, mask, targets)
    return logits, recorded


def test_a_padded_row_is_read_as_it_is_alone(llama: Llama) -> None:
    together, both = _recorded(llama, EMBEDS, MASK, TARGETS)
    alone, one = _recorded(llama, EMBEDS[1:, :4], MASK[1:, :4], TARGETS[1:])
    assert torch.allclose(together[1:], alone, atol=1e-4)
    assert torch.allclose(both.encoded[0][1:, :4], one.encoded[0], atol=1e-4)
    for padded, plain in zip(both.copying, one.copying, strict=True):
        assert torch.allclose(padded[1:, :, :, :4], plain, atol=1e-3)
    for padded, plain in zip(both.looking, one.looking, strict=True):
        assert torch.allclose(padded[1:, :4, :4].exp(), plain.exp(), atol=1e-4)


def test_recording_changes_nothing(llama: Llama) -> None:
    logits, recorded = _recorded(llama, EMBEDS, torch.ones(2, 7), TARGETS)
    assert torch.equal(logits, llama.target_logits(EMBEDS, torch.ones(2, 7), TARGETS))
    assert [len(recorded.copying), len(recorded.looking), len(recorded.encoded)] == [2, 2, 1]


def test_the_recorded_attention_is_the_models_own(llama: Llama) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    last = llama.model.layers[COPYING_LAYERS[-1]].get_submodule("self_attn")
    handles = [
        last.register_forward_hook(lambda module, inputs, output: seen.append((inputs[3].values, attended[-1]))),
        last.get_submodule("o_proj").register_forward_hook(lambda module, inputs, output: attended.append(inputs[0])),
    ]
    attended: list[Tensor] = []
    _, recorded = _recorded(llama, EMBEDS, torch.ones(2, 7), TARGETS)
    for handle in handles:
        handle.remove()
    values, output = seen[0]
    first = recorded.copying[-1][:, :, :1].exp() @ values[:, :2, :7]  # the first target token sees the context alone
    assert torch.allclose(first.transpose(1, 2).flatten(2), output[:, 6:7, :64], atol=1e-5)


def test_the_context_looks_backwards(llama: Llama) -> None:
    _, recorded = _recorded(llama, EMBEDS, torch.ones(2, 7), TARGETS)
    for attention in recorded.looking:
        assert torch.allclose(attention.exp().sum(-1), torch.ones(2, 7), atol=1e-5)
        assert not attention.exp().triu(diagonal=1).any()


def test_what_looks_comes_before_what_copies() -> None:
    assert max(GUIDED_LAYERS) < min(COPYING_LAYERS)
