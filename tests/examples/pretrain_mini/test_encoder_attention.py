import numpy as np
import pytest
import torch
from torch import Tensor

from pretrain_mini.architecture import mini_config, new_model
from pretrain_mini.encoder_attention import (
    GUIDED_LAYERS,
    comparing_looks,
    encoder_attention_loss,
    recorded_self_attention,
    sparse,
)
from vlinstruct.backends.instructblip.t5 import T5


def test_the_recorded_attention_is_the_encoders_own() -> None:
    model = new_model(mini_config(30, 30), seed=0).language_model
    assert isinstance(model, T5)
    embeds, mask, target = torch.randn(2, 6, 160), torch.ones(2, 6).long(), torch.randint(3, 30, (2, 4))
    mask[1, 4:] = 0
    values, attended = [], []
    last = model.encoder.block[GUIDED_LAYERS[-1]].get_submodule("layer.0.SelfAttention")

    def keep(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        values.append(inputs[2])

    handles = [
        last.register_forward_hook(keep),
        last.get_submodule("o").register_forward_hook(lambda module, inputs, output: attended.append(inputs[0])),
    ]
    with recorded_self_attention(model) as recorded:
        model.target_logits(embeds, mask, target)
    for handle in handles:
        handle.remove()
    assert len(recorded) == len(GUIDED_LAYERS)
    assert torch.allclose(recorded[-1].exp() @ values[0][:, 4], attended[0][..., 4 * 32 :], atol=1e-5)


def test_the_loss_falls_with_attention_to_where_it_should_look() -> None:
    looks = comparing_looks(2, [slice(0, 1), slice(1, 2)], [0, 1])[None]
    right = [torch.tensor([[[0.1, 0.9], [0.9, 0.1]]]).log(), torch.tensor([[[0.9, 0.1], [0.1, 0.9]]]).log()]
    assert encoder_attention_loss(right, [sparse(looks)]).item() == pytest.approx(-np.log(0.9), abs=1e-6)
    assert encoder_attention_loss(right, [sparse(looks)]) < encoder_attention_loss(right[::-1], [sparse(looks)])
    assert encoder_attention_loss(right, [sparse(np.zeros_like(looks))]) == 0


def test_every_call_is_measured_by_its_own_looks() -> None:
    looks = comparing_looks(2, [slice(0, 1), slice(1, 2)], [0, 1])[None]
    right = [torch.tensor([[[0.1, 0.9], [0.9, 0.1]]]).log(), torch.tensor([[[0.9, 0.1], [0.1, 0.9]]]).log()]
    first = encoder_attention_loss([*right, *right[::-1]], [sparse(looks), sparse(np.zeros_like(looks))])
    second = encoder_attention_loss([*right[::-1], *right], [sparse(np.zeros_like(looks)), sparse(looks)])
    assert first == second


def test_sparse_looks_are_the_dense_ones() -> None:
    looks = comparing_looks(9, [slice(0, 3), slice(3, 6)], [2, 5])[None]
    assert np.array_equal(sparse(looks).dense(torch.device("cpu")).numpy(), looks)
