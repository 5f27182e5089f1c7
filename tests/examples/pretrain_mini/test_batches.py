import numpy as np
import pytest
import torch

from pretrain_mini.architecture import mini_config, new_model
from pretrain_mini.batches import Batch, BatchMaker, BatchShape
from pretrain_mini.labels import IGNORED, NUM_QUERY_TOKENS
from pretrain_mini.losses import WEIGHTS, AuxiliaryHeads, all_losses, total_loss
from pretrain_mini.reading import LANGUAGE_MODELS, LanguageModelName
from pretrain_mini.row_tokenizer import padded
from pretrain_mini.rows import VERDICTS

SHAPE = BatchShape(pictures=6, pages=1, asked=12, scored=2, rewritten=2, told=1, read=4, compared=1)


@pytest.fixture(scope="module")
def maker() -> BatchMaker:
    return BatchMaker(seed=0, fonts=("pillow",))


@pytest.fixture(scope="module")
def batch(maker: BatchMaker) -> Batch:
    return maker.make(0, SHAPE)


def test_a_batch_is_a_function_of_seed_and_index(maker: BatchMaker, batch: Batch) -> None:
    again, other = maker.make(0, SHAPE), maker.make(1, SHAPE)
    assert np.array_equal(batch.pixels, again.pixels)
    assert all(np.array_equal(a.target_ids, b.target_ids) for a, b in zip(batch.visual, again.visual, strict=True))
    assert not np.array_equal(batch.pixels, other.pixels)


def test_a_batch_has_the_rows_asked_for(batch: Batch) -> None:
    assert batch.pixels.shape == (6, 3, 120, 120)
    assert sum(len(rows.picture) for rows in batch.visual) == 12 + 2 * 2 + 1
    assert sum(len(rows.target_ids) for rows in batch.text) == 3
    assert sum(len(rows.family) for rows in batch.read) == 4


def test_every_target_ends_with_the_end_token(batch: Batch) -> None:
    for ids in (*(rows.target_ids for rows in batch.text), *(rows.target_ids for rows in batch.visual)):
        assert all(row[row != 0][-1] == 1 for row in ids)


def test_character_labels_are_the_answers_letters(maker: BatchMaker, batch: Batch) -> None:
    checked = 0
    for rows in batch.visual[:4]:  # questions to answer
        for ids, characters in zip(rows.target_ids, rows.labels.characters, strict=True):
            answer = maker.tokenizer.language.decode(ids.tolist(), skip_special_tokens=True)
            if characters[0] != IGNORED and answer.isalnum() and answer not in VERDICTS:
                assert (characters > 0).sum() == len(answer)
                checked += 1
    assert checked


def test_padding_goes_to_the_right() -> None:
    assert padded([[1, 2], [3]]).tolist() == [[1, 2], [3, 0]]


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_every_parameter_learns_from_a_batch(kind: LanguageModelName) -> None:
    maker = BatchMaker(0, ("pillow",), kind)
    batch = maker.make(0, SHAPE)
    config = mini_config(maker.tokenizer.language.get_vocab_size(), maker.tokenizer.qformer.get_vocab_size(), kind)
    model = new_model(config, seed=0)
    heads = AuxiliaryHeads(
        *[one.hidden_size for one in (config.vision_config, config.qformer_config, config.text_config)]
    )
    losses = all_losses(model, heads, batch)
    assert set(losses) == set(WEIGHTS)
    assert all(torch.isfinite(loss) for loss in losses.values())
    total_loss(losses).backward()  # type: ignore[no-untyped-call]
    # The last layer's feed-forward part for the text has nothing behind it: mini is trained without CMAA.
    idle = [name for name, one in model.named_parameters() if one.grad is None]
    assert all(name.startswith("qformer.encoder.layer.2.") for name in idle)


def test_a_comparison_is_copied_from_its_better_instruction_alone(maker: BatchMaker, batch: Batch) -> None:
    compared = batch.visual[-1]
    prompt, target = compared.prompt_ids[0], compared.target_ids[0]
    assert "Score: " in maker.tokenizer.language.decode(prompt.tolist())
    copied = np.nonzero(compared.sources[0].any(axis=0))[0] - NUM_QUERY_TOKENS
    others = [place for place in range(len(prompt)) if prompt[place] in target and place not in copied]
    assert len(copied)
    assert copied.max() - copied.min() < len(prompt) // 2
    assert others
    better = compared.better[0, NUM_QUERY_TOKENS:]
    assert set(copied) <= set(np.nonzero(better == 1)[0])
    worse = maker.tokenizer.language.decode(prompt[better == 0].tolist())
    score = float(worse.rsplit("Score: ")[1].rstrip("."))
    assert score >= float(
        maker.tokenizer.language.decode(prompt[better == 1].tolist()).rsplit("Score: ")[1].rstrip(".")
    )
