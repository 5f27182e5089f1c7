import torch

from vlinstruct.mini.architecture import mini_config, new_model
from vlinstruct.mini.local_vision import OFFSETS, position_codes, shift


def test_codes_of_different_patches_are_further_apart_than_equal_ones() -> None:
    codes = position_codes(8)
    similarity = codes @ codes.T
    assert torch.allclose(similarity.diagonal(), torch.full((64,), 16.0))
    assert (similarity - 16 * torch.eye(64)).max() <= 8.001


def test_shifting_a_code_gives_the_neighbours_code() -> None:
    codes = position_codes(8).view(8, 8, 32)
    moved = codes @ shift(8, (1, -1)).T
    assert torch.allclose(moved[:-1, 1:], codes[1:, :-1], atol=1e-5)


def test_each_head_starts_out_looking_at_its_neighbour() -> None:
    model = new_model(mini_config(100, 100), seed=0)
    embeddings, layer = model.vision_model.embeddings, model.vision_model.encoder.layers[0]
    place = embeddings.position_embedding[0, 1:]
    queries, keys, _ = layer.self_attn.qkv.weight.view(3, 5, 32, 160)  # type: ignore[union-attr, operator]
    for head, (rows, columns) in enumerate(OFFSETS):
        scores = (place @ queries[head].T) @ (place @ keys[head].T).T
        inside = 3 * 8 + 3
        assert int(scores[inside].argmax()) == (3 + rows) * 8 + 3 + columns


def test_whitened_patches_have_about_unit_variance() -> None:
    from vlinstruct.mini.architecture import _sample_pictures

    embedding = new_model(mini_config(100, 100), seed=0).vision_model.embeddings.patch_embedding
    with torch.no_grad():
        patches = embedding(_sample_pictures(112)).flatten(2).transpose(1, 2).flatten(0, 1)
    variances = patches.var(dim=0)
    assert variances.max() < 1.01
    assert patches.mean(dim=0).abs().max() < 1e-3
