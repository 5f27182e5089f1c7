import torch

from pretrain_mini.architecture import llama_config, mini_config, new_model, turned
from vlinstruct.backends.instructblip.llama import Llama, Rotations


def test_a_turned_key_is_seen_best_at_its_distance() -> None:
    config = llama_config(30, 160, 32)
    rotation = Rotations(config, torch.float32, torch.device("cpu")).at(torch.arange(300)[None], 300)
    query, key = (rotation.rotate(turned(offset, config).expand(1, 1, 300, 32))[0, 0] for offset in (0, -2))
    attention = (query[200] @ key.T * 32**-0.5).softmax(dim=-1)
    assert attention.argmax() == 198
    assert attention[198] > 0.95


def test_an_untrained_mini_llama_is_as_large_as_its_card_says() -> None:
    model = new_model(mini_config(949, 700, "llama"), seed=0)
    assert isinstance(model.language_model, Llama)
    assert 5e6 < sum(parameter.numel() for parameter in model.parameters()) < 6.5e6
