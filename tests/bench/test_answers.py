"""All arms answer the same, and are reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models
from PIL import Image

from vlinstruct.backends.instructblip.opening import load_backend
from vlinstruct.bench.answers import ARMS, OurArms, as_record, as_table, compare
from vlinstruct.bench.workload import INSTRUCTION, OPTIMIZED, REWRITTEN, Workload


def test_our_optimized_arm_counts_all_three_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = load_backend("mini", device="cpu")
    scored: list[str] = []
    arms = OurArms(backend, [Image.new("RGB", (60, 40))], Workload())
    score = arms.backend.score

    def counted(rows: Any, targets: Any, **settings: Any) -> Any:
        scored.extend(target for row in targets for target in row)
        return score(rows, targets, **settings)

    monkeypatch.setattr(arms.backend, "score", counted)
    arms.optimized()
    assert scored == [INSTRUCTION, REWRITTEN, OPTIMIZED]


@pytest.mark.parametrize("kind", ["t5", "llama"])
@pytest.mark.parametrize("batch", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_all_arms_run_and_are_reported(kind: str, batch: int, tiny_folders: dict[str, Path]) -> None:
    backend = load_backend(str(tiny_folders[kind]), device="cpu")
    workload = Workload(answer_tokens=3, batch=batch, acceptance=0.5)
    (compared,) = compare(backend, tiny_models.hf_model(kind), [workload], runs=2)
    assert [timing.arm for timing in compared.timings] == list(ARMS)
    assert all(len(timing.seconds) == 2 and timing.median_s > 0 for timing in compared.timings)
    record = as_record("tiny", [compared], (), {})
    assert record["comparisons"][0]["median_ratio_to_transformers_plain"][ARMS[0]] == 1.0
    table = as_table([compared])
    assert all(arm in table for arm in ARMS)
    assert table.splitlines()[-1].startswith("drafts: ")
