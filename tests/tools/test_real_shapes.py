"""What is run by hand on an accelerator runs here on mini's shapes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from vlinstruct.bench.random_weights import random_backbone
from vlinstruct.bench.training_workload import training_workloads

from .real_shapes import answers, frozen_parts, training, write_folder


def test_training_is_measured() -> None:
    model = random_backbone("mini", device="cpu", dtype="float32")
    assert frozen_parts(model, 4)["same_bits_at_any_place"]
    found = training(model, dataclasses.replace(training_workloads(2)[0], num_updates=2), epochs=2)
    assert found["batch_size"] == 2
    assert found["from_to"][0] <= found["samples_per_s"] <= found["from_to"][1]
    assert math.isclose(found["recipe_minutes"] * 60 * found["samples_per_s"], 450_000)


def test_a_written_folder_loads_and_answers(tmp_path: Path) -> None:
    write_folder("mini", tmp_path / "random", "cpu")
    found = answers(tmp_path / "random", None, "cpu")
    assert all(found[name] > 0 for name in ("load_s", "first_answer_s", "score_s", "optimized_answer_s"))
