"""IAS (eq. 3) equals a reading of it through transformers; scores do not depend on who else is in the batch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from PIL import Image
from tiny_models import same_nll, seen_of

import vlinstruct as vli
from vlinstruct.backend import Row
from vlinstruct.instruction import Templates
from vlinstruct.model import Model
from vlinstruct.values import good

KINDS = ("t5", "llama")
TEXTS = ["what is it?", "describe the 2 red things", "x"]


def picture(seed: int) -> Image.Image:
    draw = torch.Generator().manual_seed(seed)
    return Image.fromarray(torch.randint(0, 256, (30, 40, 3), generator=draw, dtype=torch.uint8).numpy())


def reference_ias(theirs: Any, ours: Model, image: Image.Image, instruction: str) -> float:
    """Eq. 3 from transformers' full logits, one instruction at a time, without a batch, a cache or our modules."""
    model, kind = ours.backend, theirs.config.text_config.model_type
    prompt = model.tokenizer.prompt_ids(Templates.default().score_prompt())
    target = model.tokenizer.target_ids(instruction)
    images = [tiny_models.IMAGE_TOKEN_INDEX] * tiny_models.NUM_QUERY_TOKENS
    inputs: dict[str, Any] = {
        "pixel_values": model.image_processor([image]),
        "qformer_input_ids": torch.tensor([model.qformer_tokenizer.encode(instruction)]),
    }
    inputs["qformer_attention_mask"] = torch.ones_like(inputs["qformer_input_ids"])
    with torch.inference_mode():
        if kind == "t5":
            ids = torch.tensor([images + prompt])
            labels = torch.tensor([target])
            logits = theirs(**inputs, input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).logits[0]
        else:
            ids = torch.tensor([images + prompt + target])
            logits = theirs(**inputs, input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
            logits = logits[-len(target) - 1 : -1]
    log_probs = torch.log_softmax(logits.double(), dim=-1)
    return -sum(float(log_probs[i, token]) for i, token in enumerate(target)) / len(target)


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> tuple[Any, Model]:
    return tiny_models.hf_model(request.param), vli.load(str(tiny_folders[request.param]), device="cpu")


def test_ias_equals_a_reference_through_transformers(pair: tuple[Any, Model]) -> None:
    theirs, ours = pair
    scored = ours.score(picture(0), *TEXTS)
    expected = [reference_ias(theirs, ours, picture(0), text) for text in TEXTS]
    assert [one.ias for one in scored] == pytest.approx(expected, abs=1e-5)


def test_ias_counts_the_end_token_and_no_prompt_token(pair: tuple[Any, Model]) -> None:
    _, ours = pair
    (one,) = ours.score(picture(0), "ab")
    assert one.scores.tokens == ("▁", "a", "b", "</s>")
    assert one.ias == pytest.approx(sum(one.scores.token_nll) / len(one.scores.token_nll))


def test_a_padded_batch_scores_like_one_by_one(pair: tuple[Any, Model]) -> None:
    _, ours = pair
    seen = seen_of(ours, *(picture(seed) for seed in range(3)))
    together = ours.score_each(seen, [[text] for text in TEXTS])
    for row, text in enumerate(TEXTS):
        (alone,) = ours.score(picture(row), text)
        (scored,) = good(together[row])
        assert scored.ias == pytest.approx(alone.ias, abs=1e-5)
        assert scored.scores.token_nll == same_nll(alone.scores.token_nll)


def test_text_alone_is_scored_as_transformers_language_model_scores_it(pair: tuple[Any, Model]) -> None:
    theirs, ours = pair
    language_model, tokenizer = theirs.language_model, ours.backend.tokenizer
    together = ours.backend.score([Row(prompt="a prompt")] * 3, [[text] for text in TEXTS])
    for text, (scores,) in zip(TEXTS, map(good, together), strict=True):
        prompt, target = tokenizer.prompt_ids("a prompt"), tokenizer.target_ids(text)
        with torch.inference_mode():
            if theirs.config.text_config.model_type == "t5":
                logits = language_model(input_ids=torch.tensor([prompt]), labels=torch.tensor([target])).logits[0]
            else:
                logits = language_model(input_ids=torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
        expected = -logits.log_softmax(dim=-1)[torch.arange(len(target)), target]
        assert scores.token_nll == same_nll(expected.tolist())


def test_ranked_candidates_score_like_single_targets(pair: tuple[Any, Model]) -> None:
    """The shared context (prefill once, then every candidate) against one full pass per candidate."""
    _, ours = pair
    seen, questions = seen_of(ours, picture(0), picture(1)), ["what?", "why so?"]
    candidates = [["yes", "no", "a longer answer"], ["x"]]
    shared = ours.rank_each(seen, questions, candidates)
    for row, question in enumerate(questions):
        for got, text in zip(good(shared[row]), candidates[row], strict=True):
            ((fresh,),) = map(good, ours.rank_each([seen[row]], [question], [[text]]))
            assert got.tokens == fresh.tokens
            assert got.token_nll == same_nll(fresh.token_nll)
            assert got.mean_nll == pytest.approx(fresh.mean_nll, abs=1e-5)


def test_choices_are_normalised_by_length(pair: tuple[Any, Model]) -> None:
    _, ours = pair
    answer = ours.ask(picture(0), "what?", choices=["yes", "a much longer answer than that"])
    weights = [math.exp(-choice.nll) for choice in answer.choices]
    assert [choice.probability for choice in answer.choices] == pytest.approx([w / sum(weights) for w in weights])
    assert answer.text == max(answer.choices, key=lambda choice: choice.probability).text


def test_a_score_that_is_not_finite_is_refused_and_said(pair: tuple[Any, Model]) -> None:
    _, ours = pair
    ours.backend.network.language_model.lm_head.weight = torch.nn.Parameter(
        torch.full_like(ours.backend.network.language_model.lm_head.weight, torch.nan), requires_grad=False
    )
    with pytest.raises(vli.VlinstructError, match="finite"):
        ours.score(picture(0), *TEXTS)
    with pytest.raises(vli.VlinstructError, match="finite"):
        ours.ask(picture(0), "what?", choices=["yes", "no"])
    with pytest.raises(vli.VlinstructError, match="finite"):
        ours.ask(picture(0), "what?")
