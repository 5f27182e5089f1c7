"""A replayed model writes what is laid down, whatever it would have written, and drafts are as good as was asked."""

from __future__ import annotations

import pytest
import tiny_models
import torch

from vlinstruct.backend import Row, Written
from vlinstruct.backends.instructblip.decoding import generate
from vlinstruct.backends.instructblip.language_model import Context
from vlinstruct.backends.instructblip.opening import load_backend
from vlinstruct.bench.replay import (
    ReplayedBackend,
    ReplayedReader,
    ScriptedLogits,
    acceptance,
    draft_of,
    measured_acceptance,
)
from vlinstruct.bench.workload import ANSWER, OPTIMIZED, REWRITTEN
from vlinstruct.settings import GenerationSettings

SCRIPT = [7, 8, 9, 10, 11, 1]


@pytest.mark.parametrize("kind", ["t5", "llama"])
@pytest.mark.parametrize("sources", [(), [[7, 8, 99, 10, 11, 1], []]])
def test_a_replayed_model_writes_its_script(kind: str, sources: list[list[int]]) -> None:
    language_model, settings = tiny_models.our_model(kind).language_model, GenerationSettings(max_new_tokens=20)
    embeds = torch.randn(2, 5, language_model.embed_tokens(torch.zeros(1, 1).long()).shape[-1])
    context = Context(inputs_embeds=embeds, attention_mask=torch.ones(2, 5).bool(), penalized_ids=((0,), (0,)))
    with torch.inference_mode():
        texts = generate(ReplayedReader(language_model, SCRIPT), context, settings, (1,), sources=sources)
    assert [text.ids for text in texts] == [SCRIPT[:-1]] * 2


def test_transformers_logits_follow_the_script_too() -> None:
    process = ScriptedLogits(SCRIPT)
    steps = [process(None, torch.randn(3, 50)).argmax(dim=-1).tolist() for _ in range(3)]
    assert steps == [[7] * 3, [8] * 3, [9] * 3]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.77, 0.9, 1.0])
def test_drafts_give_the_share_of_tokens_asked_for(share: float) -> None:
    ids = load_backend("mini", device="cpu").tokenizer.target_ids
    for text in (REWRITTEN, OPTIMIZED):
        # One wrong word in the middle costs two passes at least, so that no draft gives exactly nine tokens of ten.
        assert acceptance(ids(draft_of(text, share, ids)), ids(text)) == pytest.approx(share, abs=0.11)


def test_answers_are_long_enough() -> None:
    assert len(load_backend("mini", device="cpu").tokenizer.encode(ANSWER)) >= 15


def test_minis_drafts_are_mostly_right() -> None:
    assert 0.5 < measured_acceptance(8) <= 1


def test_a_backend_that_is_replayed_stays_as_it_is() -> None:
    """What is measured is a copy: the weights are shared, the backend itself writes its own text before and after."""
    backend = load_backend("mini", device="cpu")
    language_model, names = backend.network.language_model, list(backend.network.state_dict())
    rows, settings = [Row(prompt="what", stage="rewrite", guess="what")], GenerationSettings(max_new_tokens=40)
    before = backend.write(rows, settings)
    replayed = ReplayedBackend(backend, acceptance=0.5)
    (written,) = replayed.write(rows, settings)
    assert isinstance(written, Written)
    assert written.text == REWRITTEN
    assert backend.network.language_model is language_model
    assert list(backend.network.state_dict()) == names
    assert backend.write(rows, settings) == before
    assert replayed.network.query_tokens is backend.network.query_tokens
