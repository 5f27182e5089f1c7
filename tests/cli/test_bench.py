"""`vlinstruct bench`, on mini."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import vli
from PIL import Image

from vlinstruct import bench
from vlinstruct.bench.answers import ARMS
from vlinstruct.bench.cold_start import COLD_ARMS
from vlinstruct.bench.workload import Workload

QUICK = ("bench", "--backbone", "mini", "--runs", "2", "--device", "cpu", "--cold-runs", "0")


@pytest.mark.slow
def test_bench_times_every_arm_and_keeps_every_run() -> None:
    (record,) = vli(*QUICK[:-1], 2, "--acceptance", "1", "--json").records
    assert (record["schema"], record["id"], record["status"]) == ("vlinstruct.bench/1", "mini", "ok")
    assert [one["answer_tokens"] for one in record["comparisons"]] == [2, 15]
    for one in record["comparisons"]:
        assert list(one["seconds"]) == list(ARMS)
        assert {len(seconds) for seconds in one["seconds"].values()} == {2}
    assert list(record["cold_start"]["seconds"]) == list(COLD_ARMS)
    assert {len(seconds) for seconds in record["cold_start"]["seconds"].values()} == {2}
    peaks = record["cold_start"]["peak_bytes"]
    assert peaks["import torch"] < peaks["vlinstruct ask"] < peaks["transformers, plain"]
    assert record["environment"]["device"] == "cpu"


@pytest.mark.slow
def test_bench_prints_a_table_per_length_and_draws_it(tmp_path: Path) -> None:
    plot = tmp_path / "bench.png"
    text = vli(*QUICK, "--acceptance", "0.5", "--plot", plot).text
    assert text.count("50 % of drafts right") == 2
    assert all(text.count(arm) == 2 for arm in ARMS)
    with Image.open(plot) as picture:
        assert picture.width > 500


@pytest.mark.slow
def test_bench_says_what_is_slower_and_loses_nothing_that_it_measured(tmp_path: Path) -> None:
    before = tmp_path / "before.json"
    (record,) = vli(*QUICK, "--acceptance", "1", "--json").records
    for compared in record["comparisons"]:  # as if all but transformers' plain answer had been a hundred times as fast
        for arm in ARMS[1:]:
            compared["seconds"][arm] = [seconds / 100 for seconds in compared["seconds"][arm]]
    before.write_text(json.dumps(record))
    assert vli(*QUICK, "--acceptance", "1", "--against", before).text.splitlines()[-1].strip() == "8 of 8 slower"
    before.write_text(json.dumps({**record, "id": "mini-llama"}))
    refused = vli(*QUICK, "--acceptance", "1", "--against", before)
    assert refused.exit_code == 4
    assert "they have measured different things" in refused.lines[-1]
    assert b"100 % of drafts right" in refused.stdout


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_random_weights_need_no_more_than_a_configuration(
    kind: str, tmp_path: Path, tiny_folders: dict[str, Path]
) -> None:
    values = json.loads((tiny_folders[kind] / "config.json").read_text())
    for part in ("text_config", "qformer_config"):
        values[part]["vocab_size"] = 2_100  # mini's ids, which are replayed, lie below
    (tmp_path / "config.json").write_text(json.dumps(values))
    done = vli("bench", "--backbone", tmp_path, *QUICK[3:], "--acceptance", "1", "--random-weights")
    assert all(done.text.count(arm) == 2 for arm in ARMS)
    headings = [f"batch 1, answers of {number} tokens, 100 % of drafts right" for number in (2, 15)]
    assert done.lines == [f"progress: {at} of 2: {heading}" for at, heading in enumerate(headings, start=1)]


def test_every_batch_size_is_measured_in_the_order_given(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[int, int]] = []

    def compare(ours: Any, theirs: Any, workloads: Sequence[Workload], runs: int) -> list[Any]:
        measured.extend((workload.answer_tokens, workload.batch) for workload in workloads)
        return []

    monkeypatch.setattr("vlinstruct.bench.bench.compare", compare)
    vli(*QUICK, "--acceptance", "1", "--batch-size", "8", "--batch-size", "1", "--batch-size", "8", "--json")
    # What differs in nothing but its batch stands side by side.
    assert measured == [(2, 8), (2, 1), (15, 8), (15, 1)]
    measured.clear()
    vli(*QUICK, "--acceptance", "1", "--json")
    assert measured == [(2, 1), (15, 1)]


@pytest.mark.parametrize("option", [("--batch-size", "3"), ("--acceptance", "0.5")])
def test_a_file_with_which_nothing_can_be_compared_is_refused_before_anything_is_measured(
    option: tuple[str, str],
) -> None:
    refused = vli(*QUICK, *option, "--against", Path(bench.__file__).with_name("mini.json"))
    assert f"it was measured with {option[0]} " in refused.refusal(4)
    assert not refused.stdout


def test_a_vocabulary_that_lacks_the_written_tokens_is_refused(tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    shutil.copy(tiny_folders["t5"] / "config.json", tmp_path)
    assert "vocabulary" in vli("bench", "--backbone", tmp_path, "--random-weights").refusal(5)


def test_random_weights_of_nothing_known_are_refused(tmp_path: Path) -> None:
    assert "config.json" in vli("bench", "--backbone", tmp_path, "--random-weights").refusal(5)


def test_a_plot_needs_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'vlinstruct[plots]'" in vli("bench", "--plot", "a.png").refusal(6)


@pytest.mark.parametrize(
    ("path", "words"), [("a.xyz", "unknown ending"), ("no/such/a.png", "its folder does not exist")]
)
def test_a_plot_that_could_not_be_written_is_refused_before_anything_is_measured(path: str, words: str) -> None:
    assert words in vli("bench", "--plot", path).refusal(2)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--runs", "1"), ("--acceptance", "2"), ("--batch-size", "0"), ("--threads", "0"), ("--cold-runs", "1")],
)
def test_bench_refuses_what_it_cannot_do(option: str, value: str) -> None:
    vli("bench", option, value).refusal(2)


def test_ranking_is_measured_and_refuses_what_it_does_not_measure(tiny_folders: dict[str, Path]) -> None:
    asked = ("bench", "--backbone", tiny_folders["t5"], "--candidates", "3", "--runs", "2")
    (record,) = vli(*asked, "--json").records
    assert (record["schema"], record["candidates"]) == ("vlinstruct.bench.ranking/1", 3)
    assert "--training, --candidates and --data together" in vli(*asked, "--training").refusal(2)
    assert "--batch-size: not available with --candidates" in vli(*asked, "--batch-size", "4").refusal(2)
