"""Texts stay literal, pixels equal transformers', EMA doubles the prefix, a batch changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image
from tiny_models import seen_of

import vlinstruct as vli
from vlinstruct.backend import Row, Seen, Written
from vlinstruct.backends.instructblip.image_processor import ImageProcessor
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.backends.instructblip.tokenization import QFormerTokenizer, TextTokenizer
from vlinstruct.errors import CheckpointError, TextError
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.values import Failed, good

SPECIAL = ["</s>", "<s>", "<pad>", "<unk>", "<image>", "<image>" * 1000, "[CLS]", "[SEP] x", "[DEC]", "<extra_id_0>"]
SPECIAL += ["{}", "{0}", "{instruction}", "%s", "$x", "{{ jinja }}", "###", "USER: hi ASSISTANT:"]


@pytest.fixture(params=["t5", "llama"])
def model(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> Model:
    return vli.load(str(tiny_folders[request.param]), device="cpu")


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8))


def ask(seen: Seen, text: str) -> Row:
    return Row(prompt=text, seen=(seen,), reads=text)


def texts_of(model: Model, rows: Sequence[Row], settings: GenerationSettings) -> list[str]:
    return [good(written).text for written in model.backend.write(rows, settings)]


@pytest.mark.parametrize("text", SPECIAL)
def test_special_strings_are_plain_text_to_the_language_model(text: str, model: Model) -> None:
    tokenizer = model.backend.tokenizer
    ids = tokenizer.encode(text)
    special = {tokenizer.tokenizer.token_to_id(token) for token in ("<pad>", "</s>", "<s>", "<image>")}
    assert not special & set(ids)
    assert "".join(tokenizer.pieces(ids)).replace("▁", "") == text.replace(" ", "")


@pytest.mark.parametrize("text", SPECIAL)
def test_special_strings_are_plain_text_to_the_qformer(text: str) -> None:
    tokenizer = QFormerTokenizer(tiny_models.qformer_tokenizer(), max_length=100_000)
    first, *ids, last = tokenizer.encode(text)
    assert (first, last) == (tokenizer.cls_id, tokenizer.sep_id)
    assert not {tokenizer.cls_id, tokenizer.sep_id} & set(ids)


def test_t5_prompts_keep_their_end_token_and_llama_prompts_begin() -> None:
    t5 = TextTokenizer(tiny_models.text_tokenizer("t5"), eos_id=1, prompt_suffix=(1,))
    llama = TextTokenizer(tiny_models.text_tokenizer("llama"), eos_id=2, prompt_prefix=(1,))
    assert t5.prompt_ids("a") == [*t5.encode("a"), 1]
    assert llama.prompt_ids("a") == [1, *llama.encode("a")]
    assert llama.target_ids("a") == [*llama.encode("a"), 2]


def test_a_long_qformer_text_is_cut_with_a_notice(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = QFormerTokenizer(tiny_models.qformer_tokenizer(), max_length=10)
    ids = tokenizer.encode("a b c d e f g h i j k")
    assert len(ids) == 10
    assert ids[-1] == tokenizer.sep_id
    assert "first 8 of the instruction's 11 tokens" in caplog.text


def test_a_prompt_beyond_llamas_positions_is_refused_with_both_numbers(tiny_folders: dict[str, Path]) -> None:
    model = vli.load(str(tiny_folders["llama"]), device="cpu")
    with pytest.raises(TextError, match=r"\d+ tokens, the language model takes 2048"):
        model.ask(picture(0), "a" * 5000)


@pytest.mark.parametrize("size", [(40, 30), (28, 28), (500, 333), (1, 1), (9, 400)])
def test_pixels_equal_transformers(size: tuple[int, int]) -> None:
    import transformers

    # transformers 5.3 has no other one on Pillow than this.
    processor = getattr(transformers, "BlipImageProcessorPil", transformers.BlipImageProcessor)
    theirs = processor(size={"height": 28, "width": 28})
    ours = ImageProcessor(image_size=28)
    image = picture(1, size)
    expected = theirs(image, return_tensors="pt", input_data_format="channels_last").pixel_values
    torch.testing.assert_close(ours([image]), expected, atol=1e-5, rtol=0)


def test_a_zero_in_image_std_is_refused() -> None:
    with pytest.raises(CheckpointError, match="not finite"):
        ImageProcessor(image_size=28, image_std=(0.0, 1.0, 1.0))([picture(0)])


def test_ema_puts_twice_as_many_tokens_before_the_prompt(model: Model) -> None:
    module: InstructBlip = model.backend.network
    ids, mask = torch.tensor([[2, 9, 9, 3]]), torch.ones(1, 4)
    image_embeds = seen_of(model, picture(0))[0].image_embeds[None]
    plain = module.image_prefix(image_embeds, ids, mask)
    module.use_ema = True
    aligned = module.image_prefix(image_embeds, ids, mask)
    assert aligned.shape[1] == 2 * plain.shape[1] == 2 * tiny_models.NUM_QUERY_TOKENS
    torch.testing.assert_close(aligned[:, : plain.shape[1]], plain)


def test_a_batch_answers_like_one_by_one(model: Model) -> None:
    images = [picture(seed) for seed in range(4)]
    questions = ["what?", "describe it in 3 words", "x", "is it red or blue?"]
    config = GenerationSettings(max_new_tokens=8)
    together = model.ask_each(seen_of(model, *images), questions, generation=config)
    alone = [model.ask(image, text, generation=config) for image, text in zip(images, questions, strict=True)]
    assert [str(answer) for answer in together] == [str(answer) for answer in alone]


def test_sampling_depends_on_the_seed_and_not_on_the_batch(model: Model) -> None:
    images = [picture(seed) for seed in range(3)]

    def sample(seed: int, images: list[Image.Image]) -> list[str]:
        config = GenerationSettings(max_new_tokens=10, do_sample=True, top_p=0.9, temperature=1.5, seed=seed)
        return [str(one) for one in model.ask_each(seen_of(model, *images), ["what?"] * len(images), generation=config)]

    together = sample(1, images)
    assert together == sample(1, images)
    assert together != sample(2, images)
    assert together == [sample(1, [image])[0] for image in images]


def test_text_alone_needs_no_picture(model: Model) -> None:
    settings = GenerationSettings(max_new_tokens=6)
    rows = [Row(prompt="rewrite this"), Row(prompt="a longer prompt than that")]
    together = texts_of(model, rows, settings)
    assert together == [texts_of(model, [row], settings)[0] for row in rows]


def test_a_picture_is_read_once_for_each_text(model: Model) -> None:
    (one, other), num_read = seen_of(model, picture(0), picture(1)), []
    qformer = model.backend.network.qformer
    handle = qformer.register_forward_hook(lambda module, inputs, output: num_read.append(len(output[0])))
    settings = GenerationSettings(max_new_tokens=6)
    first = texts_of(model, [ask(one, "a"), ask(other, "a")], settings)
    again = texts_of(model, [ask(other, "a"), ask(one, "b"), ask(other, "a"), ask(one, "b")], settings)
    handle.remove()
    assert num_read == [2, 1]
    fresh = seen_of(model, picture(1), picture(0), picture(1), picture(0))
    assert again == texts_of(model, list(map(ask, fresh, "abab")), settings)
    assert [first[1]] == again[:1]


def test_guesses_change_no_optimization(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["what colour is it?", "read the 3 words", "a b c d e f g"]
    seen = seen_of(model, *(picture(seed) for seed in range(3)))
    settings = OptimizationSettings(max_new_tokens=12)
    guessed = model.optimize_each(seen, texts, optimization=settings)
    passes: list[int] = []
    original = model.backend.write

    def without_guesses(rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        passes.extend(bool(row.guess) for row in rows if row.stage in ("rewrite", "compare"))
        return original([replace(row, guess="") for row in rows], settings)

    monkeypatch.setattr(model.backend, "write", without_guesses)
    plain = Model(model.backend).optimize_each(seen, texts, optimization=settings)
    assert passes == [True] * 6
    for one, other in zip(map(good, guessed), map(good, plain), strict=True):
        assert (one.rewritten.text, one.optimized.text) == (other.rewritten.text, other.optimized.text)
