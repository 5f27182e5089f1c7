"""All arms answer the same, and are reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models
from PIL import Image

from vlinstruct.backends.instructblip.opening import load_backend
from vlinstruct.bench.answers import ARMS, Comparison, OurArms, as_record, as_table, compare
from vlinstruct.bench.timing import Timing
from vlinstruct.bench.work import Work
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


def test_what_goes_picture_by_picture_is_left_out_of_large_batches(tiny_folders: dict[str, Path]) -> None:
    backend = load_backend(str(tiny_folders["t5"]), device="cpu")
    (compared,) = compare(backend, tiny_models.hf_model("t5"), [Workload(answer_tokens=1, batch=9)], runs=2)
    assert [timing.arm for timing in compared.timings] == [arm for arm in ARMS if arm != "transformers, AIO"]
    assert "transformers, AIO" not in as_record("tiny", [compared], (), {})["comparisons"][0]["seconds"]


def test_a_table_fits_its_lines_and_tells_items_of_a_second() -> None:
    timings = [Timing(arm=arm, seconds=(32.0, 32.0), peak_bytes=90 * 10**9) for arm in ARMS]
    done = Work(weight_bytes=10**12, floor_seconds=1.5, num_calls=12_345, num_tokens=123_456)
    workload, work = Workload(batch=64, answer_tokens=15, acceptance=0.77), dict.fromkeys(ARMS, done)
    compared = Comparison(workload=workload, timings=tuple(timings), work=work)
    lines = as_table([compared]).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[1].split()[3:] == ["median", "quartiles", "ratio", "floor", "items/s", "calls", "tokens", "peak", "MB"]
    assert lines[2].endswith("  32000 32000 to 32000  1.00   1500    2.00 12345 123456   90000")
    (record,) = as_record("tiny", [compared], (), {})["comparisons"]
    for part, value in (("items_per_s", 2.0), ("calls", 12_345), ("tokens", 123_456), ("floor_seconds", 1.5)):
        assert record[part] == dict.fromkeys(ARMS, value)
