"""Every arm writes the workload's tokens, whatever the model would have written."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
import torch
from PIL import Image

import vlinstruct as vli
from vlinstruct.backends.instructblip.decoding import generate
from vlinstruct.backends.instructblip.language_model import Context
from vlinstruct.bench.compare import ARMS, compare
from vlinstruct.bench.drafts import acceptance, draft_of
from vlinstruct.bench.ours import OurArms
from vlinstruct.bench.replay import ReplayedLanguageModel, ScriptedLogits
from vlinstruct.bench.report import as_record, as_table
from vlinstruct.bench.workload import ANSWER, INSTRUCTION, OPTIMIZED, REWRITTEN, Workload
from vlinstruct.settings import GenerationSettings

SCRIPT = [7, 8, 9, 10, 11, 1]


@pytest.mark.parametrize("kind", ["t5", "llama"])
@pytest.mark.parametrize("sources", [(), [[7, 8, 99, 10, 11, 1], []]])
def test_a_replayed_model_writes_its_script(kind: str, sources: list[list[int]]) -> None:
    replayed = ReplayedLanguageModel(tiny_models.our_model(kind).language_model)
    embeds = torch.randn(2, 5, replayed.embed_tokens(torch.zeros(1, 1).long()).shape[-1])
    context = Context(inputs_embeds=embeds, attention_mask=torch.ones(2, 5).bool(), seen_ids=((0,), (0,)))
    replayed.replay([SCRIPT])
    with torch.inference_mode():
        texts = generate(replayed, context, GenerationSettings(max_new_tokens=20), (1,), sources)
    assert texts == [SCRIPT[:-1]] * 2


def test_transformers_logits_follow_the_script_too() -> None:
    process = ScriptedLogits(SCRIPT)
    steps = [process(None, torch.randn(3, 50)).argmax(dim=-1).tolist() for _ in range(3)]
    assert steps == [[7] * 3, [8] * 3, [9] * 3]


def test_our_optimized_arm_counts_all_three_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = vli.load("mini", device="cpu")
    scored = []
    arms = OurArms(pipeline, [Image.new("RGB", (60, 40))], Workload())
    token_nll = arms.model.token_nll
    monkeypatch.setattr(arms.model, "token_nll", lambda *rows: scored.extend(rows[-1]) or token_nll(*rows))
    arms.optimized()
    assert scored == [INSTRUCTION, REWRITTEN, OPTIMIZED]


@pytest.mark.parametrize("kind", ["t5", "llama"])
@pytest.mark.parametrize("batch", [1, 3])
def test_all_arms_run_and_are_reported(kind: str, batch: int, tiny_folders: dict[str, Path]) -> None:
    pipeline = vli.load(str(tiny_folders[kind]), device="cpu")
    workload = Workload(answer_tokens=3, batch=batch, acceptance=0.5)
    (compared,) = compare(pipeline, tiny_models.hf_model(kind), [workload], runs=2)
    assert [timing.arm for timing in compared.timings] == list(ARMS)
    assert all(len(timing.seconds) == 2 and timing.median_s > 0 for timing in compared.timings)
    record = as_record("tiny", [compared], (), {})
    assert record["comparisons"][0]["median_ratio_to_transformers_plain"][ARMS[0]] == 1.0
    assert all(arm in as_table([compared]) for arm in ARMS)


@pytest.mark.parametrize("wanted", [0.0, 0.25, 0.5, 0.77, 0.9, 1.0])
def test_drafts_give_the_share_of_tokens_asked_for(wanted: float) -> None:
    ids = vli.load("mini", device="cpu").backend.tokenizer.target_ids
    for text in (REWRITTEN, OPTIMIZED):
        assert acceptance(ids(draft_of(text, wanted, ids)), ids(text)) == pytest.approx(wanted, abs=0.06)


def test_answers_are_long_enough() -> None:
    assert len(vli.load("mini", device="cpu").backend.tokenizer.encode(ANSWER)) >= 15
