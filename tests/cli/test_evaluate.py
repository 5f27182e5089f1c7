"""`vlinstruct evaluate` from the shell: a small table, the same bytes again, and an interrupted run that goes on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from command_line import vli

from vlinstruct.evaluation.report.differences import NEAR

TASKS = ("mini/gqa", "mini/iconqa", "mini/visdial", "mini/flickr30k", "mini/textvqa", "mini/hatefulmemes")
SMALL = ("evaluate", *TASKS, "--backbone", "mini", "--device", "cpu", "--limit", "4", "--split", "test")


@pytest.mark.slow
def test_every_metric_runs_on_mini_and_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first = vli(*SMALL, "-o", tmp_path / "a", "--batch-size", "4", "--json")
    second = vli(*SMALL, "-o", tmp_path / "b", "--batch-size", "4", "--json")
    records = [(tmp_path / name / "records.jsonl").read_bytes() for name in "ab"]
    assert records[0] == records[1]
    assert len(records[0].splitlines()) == len(TASKS) * 3 * 4
    (table,), (again,) = first.records, second.records
    assert set(table["cells"][0]["tasks"]) == {name.removeprefix("mini/") for name in TASKS}
    for one, other in zip(table["cells"], again["cells"], strict=True):
        assert one["average"] == other["average"]
    assert table["cells"][0]["average"]["value"] > 75  # of canonical wordings, which mini answers nearly all
    assert (tmp_path / "a" / "report.html").read_text().count("<img ") == 12
    assert f"report: {tmp_path / 'a' / 'report.html'}" in " ".join(first.lines)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    vli(*SMALL, "-o", tmp_path, "--batch-size", "2")
    path = tmp_path / "records.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:31]) + lines[31][:20])
    assert vli(*SMALL, "-o", tmp_path, "--batch-size", "2").exit_code == 0
    assert path.read_bytes() == whole


def test_a_record_says_what_was_asked_scored_and_answered(tmp_path: Path) -> None:
    vli("evaluate", "mini/gqa", *SMALL[7:], "-o", tmp_path)
    for line in (tmp_path / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert record["schema"] == "vlinstruct.evaluation/3"
        known = {"faults", "written_certainty", "judged_answer", "certainty", "token_nll", "cross_nll"}
        for role in ("initial", "rewritten", "optimized"):
            assert record[role].keys() == {"text", "tokens", "ias", "answer"} | known
            assert record[role]["tokens"].keys() == {"prompt", "qformer"}
        assert record["seed"] == 0
        assert record["versions"]["torch"] == torch.__version__
        assert record["chosen"] in ("initial", "rewritten", "optimized")
        assert record["reason"]


def test_a_run_is_compared_with_another_one(tmp_path: Path) -> None:
    for name, size in (("one", "1"), ("four", "4")):
        vli("evaluate", "mini/gqa", *SMALL[7:], "-o", tmp_path / name, "--batch-size", size)
    command = ("evaluate", "mini/gqa", *SMALL[7:], "-o", tmp_path / "four", "--batch-size", "4")
    assert "other decisions: 0" in vli(*command, "--against", tmp_path / "four").text
    *_, found = vli(*command, "--against", tmp_path / "one", "--json").records
    assert (found["schema"], found["only_one"], found["texts"]) == ("vlinstruct.evaluation_differences/1", [], [])
    assert set(found["decisions"]) <= set(found["near_ties"])
    assert max(found["largest"].values()) < NEAR
    assert "cannot compare with" in vli(*command, "--against", tmp_path).refusal(2)
    compare = ("evaluate", "--compare", tmp_path / "one", tmp_path / "four")
    again = vli(*compare, "--json")
    assert again.records == [found], again.stderr
    for run in (command, compare):
        piped, drawn = vli(*run).text, vli(*run, is_terminal=True, columns=40).text
        drawn = re.sub(r"\x1b\[\d*m", "", drawn)
        assert {word for word in piped.split() if "/" not in word} <= {*drawn.split()}
        assert max(map(len, drawn.splitlines())) <= 40 < max(map(len, piped.splitlines()))
    written = vli(*compare, "-o", tmp_path / "both.html", "--report", tmp_path / "both.md")
    assert written.text.startswith("Too few items to tell which answers better: poor words, plain: B less A is +0.00")
    assert (tmp_path / "both.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "both.md").read_text().startswith("# Which of two runs answers better?")
    assert "it is there" in vli(*compare, "-o", tmp_path / "both.md").refusal(4)
    assert vli(*compare, "-o", tmp_path / "both.md", "--overwrite").exit_code == 0
    assert vli(*compare, "-o", tmp_path / "both.html").exit_code == 0  # a page of ours
    assert "neither .html nor .md" in vli(*compare, "-o", tmp_path / "both.txt").refusal(2)
    assert "mini changes nothing with --compare" in vli(*compare[:1], "mini", *compare[1:]).refusal(2)
    assert "--limit changes nothing with --compare" in vli(*compare, "--limit", "4").refusal(2)


def test_the_page_is_written_at_another_place_too_and_over_no_file_that_is_not_ours(tmp_path: Path) -> None:
    command = ("evaluate", "mini/gqa", *SMALL[7:], "-o", tmp_path / "run", "--report")
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    assert "the file exists and is no report" in vli(*command, tmp_path / "mine.html").refusal(4)
    assert not (tmp_path / "run").exists()
    assert f"done: report: {tmp_path / 'page.html'}" in vli(*command, tmp_path / "page.html").lines
    assert (tmp_path / "page.html").read_bytes() == (tmp_path / "run" / "report.html").read_bytes()
    both = ("evaluate", "mini/gqa", "gqa", "--data", tmp_path, "-o", tmp_path / "two")
    assert "have a page each" in vli(*both, "--report", tmp_path / "page.html").refusal(2)


def test_the_results_say_what_was_asked_with_what_and_what_came_of_it(tmp_path: Path) -> None:
    vli("evaluate", "mini/gqa", "mini/nocaps", *SMALL[7:], "-o", tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["schema"] == "vlinstruct.evaluation_table/1"
    assert results["metrics"] == {"gqa": "accuracy", "nocaps": "cider"}
    assert results["settings"]["batch_size"] == 16
    assert results["thresholds"].keys() == {"least_certainty", "max_cross_nll", "sure_above"}
    assert results["versions"]["torch"] == torch.__version__
    assert {(one["words"], one["verdict"], one["n"]) for one in results["verdicts"]} == {
        (words, "too few items", 8) for words in ("canonical", "paraphrased", "poor")
    }
    for cell in results["cells"]:
        assert cell["tasks"].keys() == {"gqa", "nocaps"}
        assert all(task["n"] == 4 and task["low"] <= task["value"] <= task["high"] for task in cell["tasks"].values())
    assert (tmp_path / "results.md").read_text().startswith("# Does instruction optimization help?")


def test_another_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    vli("evaluate", "mini/gqa", *SMALL[7:], "-o", tmp_path)
    line = vli("evaluate", "mini/gqa", *SMALL[7:], "-o", tmp_path, "--max-new-tokens", "9").refusal(4)
    assert str(tmp_path) in line


def test_unknown_benchmarks_and_contradictions_are_usage(tmp_path: Path) -> None:
    assert "did you mean mini?" in vli("evaluate", "minni", "-o", tmp_path).refusal(2)
    assert "--adapter" in vli("evaluate", "mini", "--ablation", "--adapter", "vanilla", "-o", tmp_path).refusal(2)
