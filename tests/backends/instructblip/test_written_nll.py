"""What a model says of its own text as it writes is what it says of that text when it is scored."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import same_nll

import vlinstruct as vli
from vlinstruct.backend import Row, Written
from vlinstruct.backends.decoding import Continuation
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.decoding import generate
from vlinstruct.backends.instructblip.scoring import target_nll
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import good

GREEDY = GenerationSettings(max_new_tokens=24)
SETTINGS = {
    "greedy": GREEDY,
    "penalty": replace(GREEDY, repetition_penalty=1.7),
    "sampled": replace(GREEDY, do_sample=True, temperature=4.0, seed=1),
    "nucleus": replace(GREEDY, do_sample=True, top_p=0.8, repetition_penalty=1.3, seed=2),
}
PROMPTS = ["what is it?", "a", "describe the 2 red things", "Q: why? A:", "is it a cat or a dog?", "x y z"]


@pytest.fixture(scope="module")
def loaded(tiny_folders: dict[str, Path]) -> dict[str, InstructBlipBackend]:
    names = {**{kind: str(folder) for kind, folder in tiny_folders.items()}, "mini": "mini", "mini-llama": "mini-llama"}
    return {kind: cast(InstructBlipBackend, vli.load(name, device="cpu").backend) for kind, name in names.items()}


def continued(
    backend: InstructBlipBackend, settings: GenerationSettings, sources: Sequence[Sequence[int]] = ()
) -> list[Continuation]:
    """Continues the prompts, and checks every token's nats against a pass over the whole text."""
    context = backend.context(PROMPTS, None)
    eos_id = backend.tokenizer.eos_id
    texts = generate(backend.network.language_model, context, settings, (eos_id,), sources=sources)
    targets = [[*text.ids, eos_id] if text.is_complete else text.ids for text in texts]
    scores = target_nll(backend.network.language_model, context, [[target] for target in targets])
    for text, (nll,) in zip(texts, scores, strict=True):
        assert text.token_nll == same_nll(nll)
    return texts


@torch.inference_mode()
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_every_token_has_the_nats_of_a_pass_over_the_whole_text(
    kind: str, name: str, loaded: dict[str, InstructBlipBackend]
) -> None:
    continued(loaded[kind], SETTINGS[name])


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["t5", "llama", "mini", "mini-llama"])
def test_right_and_wrong_guesses_leave_the_nats_as_they_are(kind: str, loaded: dict[str, InstructBlipBackend]) -> None:
    backend, draw = loaded[kind], random.Random(0)
    plain = [text.ids for text in continued(backend, GREEDY)]
    damaged = [[token for token in ids if draw.random() > 0.3] for ids in plain]
    for sources in (plain, plain[::-1], damaged, [plain[0], *[[]] * (len(PROMPTS) - 1)]):
        assert [text.ids for text in continued(backend, GREEDY, sources)] == plain


@torch.inference_mode()
def test_some_texts_end_and_some_are_cut(loaded: dict[str, InstructBlipBackend]) -> None:
    """The comparisons above would be blind if no text ever met its end token, or all of them did."""
    for kind in ("t5", "llama"):
        texts = [text for seed in range(6) for text in continued(loaded[kind], replace(SETTINGS["sampled"], seed=seed))]
        assert {text.is_complete for text in texts} == {True, False}


@pytest.fixture
def written_ids(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Collects the ids of the rows that are written; rows with and without a picture are batches of their own."""
    collected: list[list[int]] = []

    def spy(*arguments: Any, **options: Any) -> list[Continuation]:
        texts = generate(*arguments, **options)
        collected.extend(text.ids for text in texts)
        return texts

    monkeypatch.setattr("vlinstruct.backends.instructblip.backend.generate", spy)
    return collected


@pytest.mark.parametrize("name", ["greedy", "penalty"])
@pytest.mark.parametrize("kind", ["mini", "mini-llama"])
def test_a_written_text_is_scored_as_it_was_written(
    kind: str, name: str, loaded: dict[str, InstructBlipBackend], written_ids: list[list[int]]
) -> None:
    backend = loaded[kind]
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    (seen,) = map(good, backend.see([Image.fromarray(pixels)]))
    questions = ["what colour is the star?", "how many circles are there?", "what is written in the picture?"]
    rows = [
        Row(prompt=text, seen=(seen,), reads=text, guess=guess) for text in questions for guess in ("", "red", "two")
    ]
    rows += [Row(prompt=f"There is the text {text}. Please modify the text", guess=text) for text in questions]
    num_compared = 0
    for max_new_tokens in (2, 24):
        settings = replace(SETTINGS[name], max_new_tokens=max_new_tokens)
        written_ids.clear()
        together = list(map(good, backend.write(rows, settings)))
        for row, written, ids in zip(rows, together, list(written_ids), strict=True):
            assert written.token_nll is not None
            if backend.tokenizer.encode(written.text) == ids:
                ((scores,),) = map(good, backend.score([row], [[written.text]], with_end=written.is_complete))
                assert scores.token_nll == same_nll(written.token_nll)
                num_compared += 1
            *_, streamed = backend.stream(row, settings)
            assert isinstance(streamed, Written)
            assert streamed.token_nll == same_nll(written.token_nll)
            num_image_tokens = backend.network.config.num_query_tokens if row.seen else 0
            assert written.usage.prompt == len(backend.prompt_ids(row.prompt)) + num_image_tokens
            assert written.usage.written == len(written.token_nll)
    assert num_compared >= len(rows)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_beams_tell_no_nats(kind: str, loaded: dict[str, InstructBlipBackend]) -> None:
    settings = replace(GREEDY, num_beams=3)
    (written,) = map(good, loaded[kind].write([Row(prompt="what?", guess="what?")], settings))
    assert written.token_nll is None
    *_, streamed = loaded[kind].stream(Row(prompt="what?"), settings)
    assert streamed == written
