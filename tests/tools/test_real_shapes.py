"""What is run by hand on an accelerator runs here on mini's shapes, and its results become a table."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

from recorded_operations import record

from vlinstruct.backends.recordings import Recordings
from vlinstruct.bench.models import random_backbone
from vlinstruct.bench.workload import training_workloads

from .real_shapes import answers, frozen_parts, graphs, table, training, write_folder


def test_training_is_measured() -> None:
    model = random_backbone("mini", device="cpu", dtype="float32")
    assert frozen_parts(model, 4)["same_bits_at_any_place"]
    found = training(model, dataclasses.replace(training_workloads(2)[0], num_updates=2), epochs=2)
    assert found["batch_size"] == 2
    assert found["from_to"][0] <= found["samples_per_s"] <= found["from_to"][1]
    assert math.isclose(found["recipe_minutes"] * 60 * found["samples_per_s"], 450_000)


def test_replays_are_compared_with_what_is_computed_anew() -> None:
    found = graphs(random_backbone("mini", device="cpu", dtype="float32"), Recordings(record))
    assert found["is_recorded"]
    assert found["replays"] > 0
    assert found["texts_alike"] == 1
    assert 0 <= found["largest_difference_nats"] < 1e-4


def test_a_written_folder_loads_and_answers(tmp_path: Path) -> None:
    write_folder("mini", tmp_path / "random", "cpu")
    found = answers(tmp_path / "random", None, "cpu")
    assert all(found[name] > 0 for name in ("load_s", "first_answer_s", "score_s", "optimized_answer_s"))


def test_results_become_a_table_of_medians() -> None:
    ranking = {"schema": "vlinstruct.bench.ranking/1", "candidates": 3, "seconds": {"together": [0.1, 0.3, 0.2]}}
    records = [
        {"quantize": None, "answer_s": 0.5},
        {"step": "answers mini", "exit_code": 0, "seconds": 4},
        ranking,
        {"step": "ranking", "exit_code": 124, "seconds": 9},
    ]
    assert list(table(map(json.dumps, records))) == [
        "answers mini: ok, 4 s",
        "  quantize None, answer_s 0.5",
        "ranking: failed with exit code 124, 9 s",
        "  3 candidates: together 200.0 ms",
    ]
