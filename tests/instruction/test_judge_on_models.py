"""Judging with real (tiny) models: alone or in a batch, remembered or fresh, and as transformers computes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from PIL import Image
from tiny_models import seen_of

import vlinstruct as vli
from vlinstruct.backend import ProfiledBackend
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.instruction.judge import Answering, answers_to_judge, judge
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.values import NUM_JUDGED_TOKENS, Answer, Judgement, good

OWN = ["what is it?", "how many 3 are there?", "x"]
CANDIDATES = [["What?", "name the red thing", "x"], ["count them"], ["what is it?", "y", "what is it, in words?"]]
ANSWERINGS = {
    "long": Answering(generation=GenerationSettings(max_new_tokens=12)),  # longer than what is judged of it
    "beams": Answering(generation=GenerationSettings(max_new_tokens=12, num_beams=3)),
    "choices": Answering(choices=[["yes", "no"], ["1", "2", "a long answer"], ["red", "blue"]]),
    "wraps": Answering(generation=GenerationSettings(max_new_tokens=12), wraps=["Question: {} Answer:".format] * 3),
}


def picture(seed: int) -> Image.Image:
    draw = torch.Generator().manual_seed(seed)
    return Image.fromarray(torch.randint(0, 256, (30, 40, 3), generator=draw, dtype=torch.uint8).numpy())


@pytest.fixture(scope="module", params=["t5", "llama"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(kind: str, tiny_folders: dict[str, Path]) -> Model:
    return vli.load(str(tiny_folders[kind]), device="cpu")


def judged(
    model: Model, places: Sequence[int], candidates: Sequence[Sequence[str]], answering: Answering
) -> list[tuple[Answer, list[Judgement]]]:
    """Looks at the pictures anew, so that nothing is remembered of an earlier call."""
    seen = seen_of(model, *map(picture, places))
    own = [good(it) for it in answers_to_judge(model.backend, seen, [OWN[place] for place in places], answering)]
    rows = judge(model.backend, seen, own, candidates, answering)
    return [(given, [good(judgement) for judgement in row]) for given, row in zip(own, rows, strict=True)]


def require_equal(judgement: Judgement, other: Judgement) -> None:
    """Compares two judgements but for the last bits of float32."""
    assert judgement.answer.text == other.answer.text
    assert judgement.answer.certainty == pytest.approx(other.answer.certainty, rel=1e-4, abs=1e-6)
    nats = [nll for nll in (judgement.cross_nll, other.cross_nll) if nll is not None]
    assert len(nats) != 1
    assert nats[:1] == pytest.approx(nats[1:], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ANSWERINGS)
def test_a_batch_is_judged_as_one_by_one(name: str, model: Model) -> None:
    answering = ANSWERINGS[name]
    for row, (given, judgements) in enumerate(judged(model, range(3), CANDIDATES, answering)):
        for text, judgement in zip(CANDIDATES[row], judgements, strict=True):
            ((alone, (single,)),) = judged(model, [row], [[text]], answering.rows([row]))
            require_equal(Judgement(answer=given), Judgement(answer=alone))
            require_equal(judgement, single)


@pytest.mark.parametrize("name", ["long", "choices"])
def test_what_is_remembered_of_a_picture_changes_no_judgement(name: str, model: Model) -> None:
    answering, seen = ANSWERINGS[name], seen_of(model, *map(picture, range(3)))
    own = [good(given) for given in answers_to_judge(model.backend, seen, OWN, answering)]
    first = judge(model.backend, seen, own, CANDIDATES, answering)
    again = judge(model.backend, seen, own, CANDIDATES, answering)
    fresh = [row for _, row in judged(model, range(3), CANDIDATES, answering)]
    for one, two, three in zip(first, again, fresh, strict=True):
        for judgement, repeated, new in zip(map(good, one), map(good, two), three, strict=True):
            require_equal(judgement, repeated)
            require_equal(judgement, new)


def nats_by_transformers(theirs: Any, ours: InstructBlipBackend, seed: int, asked: str, ids: list[int]) -> list[float]:
    """The nats of an answer's tokens after a picture and an instruction: one full pass, without our modules."""
    images = [tiny_models.IMAGE_TOKEN_INDEX] * tiny_models.NUM_QUERY_TOKENS
    prompt = images + ours.tokenizer.prompt_ids(asked)
    inputs: dict[str, Any] = {
        "pixel_values": ours.image_processor([picture(seed)]),
        "qformer_input_ids": torch.tensor([ours.qformer_tokenizer.encode(asked)]),
    }
    inputs["qformer_attention_mask"] = torch.ones_like(inputs["qformer_input_ids"])
    is_t5 = theirs.config.text_config.model_type == "t5"
    input_ids = torch.tensor([prompt if is_t5 else prompt + ids])
    inputs |= {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    with torch.inference_mode():
        if is_t5:
            logits = theirs(**inputs, labels=torch.tensor([ids])).logits[0]
        else:
            logits = theirs(**inputs).logits[0, len(prompt) - 1 : -1]
    return [-float(row[token]) for row, token in zip(logits.double().log_softmax(dim=-1), ids, strict=True)]


@pytest.mark.parametrize("name", ["long", "beams", "wraps"])
def test_a_cross_check_is_what_transformers_says_of_the_answers_first_tokens_after_the_users_words(
    name: str, kind: str, model: Model
) -> None:
    theirs, backend = tiny_models.hf_model(kind), model.backend
    assert isinstance(backend, InstructBlipBackend)
    num_cut = 0
    for row, (given, judgements) in enumerate(judged(model, range(3), CANDIDATES, ANSWERINGS[name])):
        for judgement in judgements:
            ids = backend.tokenizer.encode(judgement.answer.text)
            num_cut += len(ids) > NUM_JUDGED_TOKENS
            if judgement.answer is given or not ids:
                continue
            # No end token, however short the answer is: a caption that goes on is no other answer.
            assert ids[-1] != backend.tokenizer.eos_id
            nats = nats_by_transformers(theirs, backend, row, given.instruction, ids[:NUM_JUDGED_TOKENS])
            assert judgement.cross_nll == pytest.approx(sum(nats) / len(nats), rel=1e-4)
    assert name == "beams" or num_cut  # else the law says nothing of a cut


@pytest.mark.parametrize(
    "more",
    [{}, {"choices": ANSWERINGS["choices"].choices}, {"wraps": ANSWERINGS["wraps"].wraps}],
    ids=["written", "ranked", "wrapped"],
)
def test_left_alone_a_model_answers_as_if_it_were_not_asked_to_optimize(more: dict[str, Any], model: Model) -> None:
    answers, calls = [], []
    for settings in ({}, {"optimize": True, "optimization": OptimizationSettings(sure_above=0.0)}):
        profiled = ProfiledBackend(model.backend)
        answers.append(Model(profiled).ask_each(seen_of(model, *map(picture, range(3))), OWN, **settings, **more))
        calls.append([(cost.num_calls, cost.num_rows) for cost in profiled.costs.values()])
    plain, left_alone = [[good(answer) for answer in row] for row in answers]
    assert [(it.text, it.instruction, it.choices, it.token_nll) for it in plain] == [
        (it.text, it.instruction, it.choices, it.token_nll) for it in left_alone
    ]
    assert all(answer.optimization is not None and answer.optimization.left_alone for answer in left_alone)
    assert calls[0] == calls[1] == [(1, 3)]
