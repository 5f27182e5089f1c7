import numpy as np
import pytest
import torch
from torch import Tensor

from pretrain_mini.architecture import mini_config, new_model
from pretrain_mini.copying import (
    copying_loss,
    name_sources,
    prompt_sources,
    query_sources,
    recorded_cross_attention,
    run_of,
)
from vlinstruct.backends.instructblip.t5 import T5


def _sources(target: list[int], prompt: list[int]) -> list[list[float]]:
    return prompt_sources(np.array(target), np.array(prompt)).tolist()


def test_a_token_comes_from_the_longest_common_run() -> None:
    assert _sources([3, 4, 5], [4, 9, 3, 4, 5]) == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]


def test_parts_may_change_places() -> None:
    assert _sources([5, 6, 3, 4], [3, 4, 5, 6]) == [[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]]


def test_equal_sources_share_and_common_words_are_no_copies() -> None:
    assert _sources([7], [7, 1, 7]) == [[0.5, 0, 0.5]]
    assert _sources([7], [7, 1, 7, 2, 7]) == [[0, 0, 0, 0, 0]]
    assert _sources([8], [7, 1]) == [[0, 0]]


def test_characters_come_from_the_queries_wherever_they_are_spelt() -> None:
    sources = query_sources(np.array([20, 3, 8, 9, 21, 3, 8]), np.array([3, 8, 9]), num_queries=4)
    assert np.argwhere(sources).tolist() == [[2, 0], [3, 1]]


def test_names_come_from_the_queries_that_found_the_thing() -> None:
    sources = name_sources(np.array([4, 9, 5, 7]), {1: (4, 5), 2: (6, 5)}, num_queries=3)
    assert sources.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0.5, 0.5], [0, 0, 0]]


def test_the_recorded_attention_is_the_decoders_own() -> None:
    model = new_model(mini_config(30, 30), seed=0).language_model
    assert isinstance(model, T5)
    embeds, mask, target = torch.randn(2, 5, 160), torch.ones(2, 5).long(), torch.randint(3, 30, (2, 4))
    mask[1, 3:] = 0
    calls: list[tuple[Tensor, Tensor]] = []
    last = model.decoder.block[-1].get_submodule("layer.1.EncDecAttention")
    values = last.register_forward_hook(lambda module, inputs, output: calls.append((inputs[2], output)))
    attended = last.get_submodule("o").register_forward_hook(lambda module, inputs, output: outputs.append(inputs[0]))
    outputs: list[Tensor] = []
    with recorded_cross_attention(model) as recorded:
        logits = model.target_logits(embeds, mask, target)
    values.remove()
    attended.remove()
    assert torch.equal(logits, model.target_logits(embeds, mask, target))
    assert len(recorded) == len(model.decoder.block)
    guided = recorded[-1].exp() @ calls[0][0][:, :2]
    assert torch.allclose(guided.transpose(1, 2).flatten(2), outputs[0][..., :64], atol=1e-5)
    assert recorded[-1][1, :, :, 3:].max().item() == -30


def test_the_loss_falls_with_attention_to_the_sources() -> None:
    sources = np.zeros((1, 2, 3), np.float32)
    sources[0, 0, 1] = 1
    right, wrong = (torch.tensor(row).log().expand(1, 2, 2, 3) for row in ((0.1, 0.8, 0.1), (0.8, 0.1, 0.1)))
    assert copying_loss([right, right], [sources]).item() == pytest.approx(-np.log(0.8), abs=1e-6)
    assert copying_loss([right, wrong], [sources]) < copying_loss([wrong, wrong], [sources])
    assert copying_loss([right], [np.zeros((1, 2, 3), np.float32)]) == 0


def test_a_part_that_is_not_there_is_nowhere() -> None:
    assert not run_of(np.array([5, 7]), np.array([4, 5, 6, 7])).any()
