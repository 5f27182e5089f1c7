import numpy as np
import pytest
import torch

from pretrain_mini.architecture import GRID, mini_config, new_model
from pretrain_mini.guidance import guidance_loss, recorded_attention
from pretrain_mini.labels import FOCUS_QUERIES, HALVES, NUM_QUERY_TOKENS, VERDICT_QUERY, attention_targets, centre_cell
from vlinstruct.mini.questions import Fact
from vlinstruct.mini.scene import COLOURS, Print, Scene, Thing

STAR, RING = (
    Thing(shape=shape, colour="blue", rgb=COLOURS["blue"], x=x, y=0.3, size=0.2)
    for shape, x in (("star", 0.25), ("ring", 0.75))
)
SCENE = Scene(background="white", background_rgb=(255, 255, 255), things=(STAR, RING))
WORD = Print(text="no", colour="blue", rgb=COLOURS["blue"], font="pillow", x=0.5, y=0.5, height=0.2)
NOTHING = np.zeros((GRID, HALVES * GRID), np.int64)


def _targets(family: str, *focus: Thing) -> np.ndarray:
    return attention_targets(Fact(family=family, slots={}, answer="", focus=focus), SCENE, NOTHING)


def test_queries_look_for_the_things_in_the_order_of_the_question() -> None:
    targets = _targets("position", RING, STAR)
    for query, thing in zip(FOCUS_QUERIES, (RING, STAR), strict=True):
        row, column = centre_cell(thing, None, GRID)
        assert targets[query].argmax() == 1 + row * GRID + column


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_class_tokens_share_tells_the_count(count: int) -> None:
    fact = Fact(family="count", slots={}, answer="", counted=(STAR, RING)[:count])
    targets = attention_targets(fact, SCENE, NOTHING)
    assert not targets[list(FOCUS_QUERIES)].any()
    assert targets[VERDICT_QUERY, 0] == pytest.approx(3 / (3 + count))
    assert targets[VERDICT_QUERY].sum() == pytest.approx(1)


def test_query_i_looks_at_character_i() -> None:
    index = NOTHING.copy()
    index[4, 3:5], index[4, 5] = 1, 2
    scene = Scene(background="white", background_rgb=(255, 255, 255), prints=(WORD,))
    targets = attention_targets(Fact(family="reading", slots={}, answer="no"), scene, index)
    assert np.nonzero(targets[0])[0].tolist() == [1 + 41, 1 + 42]
    assert np.nonzero(targets[1])[0].tolist() == [1 + 42]
    assert not targets[2:].any()


def test_a_question_about_the_background_guides_nothing() -> None:
    assert not _targets("colour").any()


def test_the_recorded_attention_is_the_models_own() -> None:
    model = new_model(mini_config(50, 50), seed=0)
    ids, image_embeds = torch.ones(2, 3, dtype=torch.long), torch.randn(2, 1 + GRID * GRID, 160)
    plain, _ = model.query(image_embeds, ids, ids)
    with recorded_attention(model.qformer) as calls:
        recorded, _ = model.query(image_embeds, ids, ids)
    assert torch.equal(plain, recorded)
    ((_, last),) = calls
    assert torch.allclose(last.exp().sum(-1), torch.ones(2, 3, NUM_QUERY_TOKENS), atol=1e-5)
    attention = model.qformer.encoder.layer[2].crossattention.attention  # type: ignore[union-attr]
    seen: list[torch.Tensor] = []
    handle = attention.register_forward_hook(lambda module, inputs, output: seen.extend((*inputs[:2], output)))  # type: ignore[union-attr,arg-type]
    model.query(image_embeds, ids, ids)
    handle.remove()
    values = attention.value(seen[1])[..., :32]  # type: ignore[union-attr,operator]
    assert torch.allclose(last[:, 0].exp() @ values, seen[2][..., :32], atol=1e-5)


def test_the_loss_is_least_where_attention_meets_its_target() -> None:
    wanted = np.zeros((1, 2, 4), np.float32)
    wanted[0, 0] = (0.5, 0.5, 0, 0)
    right, wrong = (torch.tensor(row).log().expand(1, 3, 2, 4) for row in ((0.4, 0.4, 0.1, 0.1), (0.1, 0.1, 0.4, 0.4)))
    assert guidance_loss([(right, right)], [wanted]) < guidance_loss([(wrong, wrong)], [wanted])
    assert guidance_loss([(right, right)], [wanted]).item() == pytest.approx(-np.log(0.4), abs=1e-6)
