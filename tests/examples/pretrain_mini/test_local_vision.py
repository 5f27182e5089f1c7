import pytest
import torch

from pretrain_mini.architecture import GRID, IMAGE_SIZE, mini_config, new_model
from pretrain_mini.local_vision import OFFSETS, position_codes, shift


@pytest.mark.parametrize(("grid", "frequencies"), [(8, 8), (10, 10), (12, 10)])
def test_a_patchs_code_is_most_like_itself(grid: int, frequencies: int) -> None:
    codes = position_codes(grid, frequencies)
    similarity = codes @ codes.T
    assert torch.allclose(similarity.diagonal(), torch.full((grid * grid,), 2.0 * frequencies))
    assert (similarity - 2 * frequencies * torch.eye(grid * grid)).max() <= 1.3 * frequencies


def test_shifting_a_code_gives_the_neighbours_code() -> None:
    codes = position_codes(8, 6).view(8, 8, 24)
    moved = codes @ shift(8, 6, (1, -1)).T
    assert torch.allclose(moved[:-1, 1:], codes[1:, :-1], atol=1e-5)


def test_each_head_starts_out_looking_at_its_neighbour() -> None:
    model = new_model(mini_config(100, 100), seed=0)
    embeddings, layer = model.vision_model.embeddings, model.vision_model.encoder.layers[0]
    place = embeddings.position_embedding[0, 1:]
    queries, keys, _ = layer.self_attn.qkv.weight.view(3, len(OFFSETS), 40, 160)  # type: ignore[union-attr, operator]
    for head, (rows, columns) in enumerate(OFFSETS):
        scores = (place @ queries[head].T) @ (place @ keys[head].T).T
        inside = 3 * GRID + 3
        assert int(scores[inside].argmax()) == (3 + rows) * GRID + 3 + columns


def test_whitened_patches_have_about_unit_variance() -> None:
    from pretrain_mini.architecture import _sample_pictures

    embedding = new_model(mini_config(100, 100), seed=0).vision_model.embeddings.patch_embedding
    with torch.no_grad():
        patches = embedding(_sample_pictures(IMAGE_SIZE)).flatten(2).transpose(1, 2).flatten(0, 1)
    variances = patches.var(dim=0)
    assert variances.max() < 1.01
    assert patches.mean(dim=0).abs().max() < 1e-3
