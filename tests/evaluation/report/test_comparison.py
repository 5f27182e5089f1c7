"""Two runs are compared item by item, on what both have, and only where their items mean the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from vlinstruct.errors import UsageError
from vlinstruct.evaluation.answering import SCHEMA
from vlinstruct.evaluation.report.comparison import Paired, Run, compare, compare_evaluations, read_run
from vlinstruct.evaluation.report.comparison_report import as_html, as_markdown, comparison_blocks, spelled_p
from vlinstruct.evaluation.report.text import as_text, spelled
from vlinstruct.settings import Thresholds

from .test_table import record

RESULTS = {
    "id": "mini/test",
    "backbone": "mini",
    "split": "test",
    "seed": 0,
    "metrics": {"gqa": "accuracy"},
    "thresholds": asdict(Thresholds()),
}


def records(answers: Sequence[str], row: str = "vanilla", words: Sequence[str] = ("canonical", "poor")) -> list[Any]:
    return [
        {**record(f"{row}/{kind}/gqa-{number:02}", answer, answer, answer), "schema": SCHEMA, "status": "ok"}
        for kind in words
        for number, answer in enumerate(answers)
    ]


def run(answers: Sequence[str], **changes: Any) -> Run:
    row = changes.pop("row", "vanilla")
    return Run(folder=Path(f"runs/{row}"), results={**RESULTS, **changes}, records=records(answers, row))


HALF = run(["yes", "no"] * 20)
BETTER = run(["yes"] * 20 + ["yes", "no"] * 10, row="mini-ema")


def average(pairs: Sequence[Paired], words: str, column: str) -> Paired:
    (pair,) = [one for one in pairs if (one.words, one.column, one.task) == (words, column, None)]
    return pair


def test_the_difference_is_tested_item_by_item_as_mcnemar_does() -> None:
    found = compare(HALF, BETTER)
    for pair in found.pairs:
        assert (pair.num_items, pair.num_differing) == (40, 10)
        assert pair.p_value == 2 / 2**10
        assert pair.difference.low > 0
        assert pair.verdict == "better"
    assert average(found.pairs, "poor", "plain").difference.value == pytest.approx(50)  # of A's 100
    assert {pair.task for pair in found.pairs} == {None, "gqa"}
    assert found.verdicts[0].startswith("B answers better: poor words, plain: B less A is +50.00 points")


def test_turned_round_it_says_the_opposite() -> None:
    there, back = compare(HALF, BETTER), compare(BETTER, HALF)
    for pair, turned in zip(there.pairs, back.pairs, strict=True):
        assert pair.p_value == turned.p_value
        assert turned.verdict == "worse"
        if pair.task is not None:
            assert pair.difference.value == -turned.difference.value


def test_a_run_against_itself_shows_no_difference_and_does_not_prove_that_there_is_none() -> None:
    found = compare(HALF, HALF)
    assert {(pair.difference.value, pair.p_value, pair.verdict) for pair in found.pairs} == {(0, 1, "too few items")}
    assert (found.differences.compared, found.differences.only_one, found.differences.texts) == (80, [], [])


def test_only_items_of_both_count_whatever_failed_or_is_missing() -> None:
    shorter = [one for one in BETTER.records if not one["id"].endswith(("-38", "-39"))]
    shorter[0] = {
        "schema": SCHEMA,
        "id": shorter[0]["id"],
        "task": "gqa",
        "status": "error",
        "code": "x",
        "message": "y",
    }
    found = compare(HALF, replace(BETTER, records=shorter))
    assert {pair.num_items for pair in found.pairs} == {37}
    assert found.num_unpaired == 3
    assert "3 items that one of both lacks are left out" in as_text(comparison_blocks(found))


def test_other_prompts_are_said_and_other_items_are_refused() -> None:
    reworded = [{**one, "initial": {**one["initial"], "text": "other"}} for one in BETTER.records]
    found = compare(HALF, replace(BETTER, records=reworded))
    assert "the two runs typed other words in 80 of their questions" in as_text(comparison_blocks(found))
    for field, value in {"references": ["no"], "candidates": ["a", "b"], "task": "vsr"}.items():
        others = [{**one, field: value} for one in BETTER.records]
        results = {**BETTER.results, "metrics": {"gqa": "accuracy", "vsr": "accuracy"}}
        with pytest.raises(UsageError, match=r"cannot compare with \(runs/mini-ema\): its gqa-00 has another"):
            compare(HALF, replace(BETTER, records=others, results=results))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seed": 1}, "--seed 1 in place of 0"),
        ({"split": "dev"}, "--split dev in place of test"),
        ({"metrics": {"gqa": "vqa_accuracy"}}, "another metric"),
    ],
)
def test_runs_of_other_items_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        compare(HALF, replace(BETTER, results={**RESULTS, **changes}))


def test_rows_of_one_name_are_compared_or_the_only_ones() -> None:
    ablation = replace(HALF, records=[*records(["yes"] * 40), *records(["no"] * 40, "EMA")])
    assert {(pair.row, pair.other_row) for pair in compare(HALF, BETTER).pairs} == {("vanilla", "mini-ema")}
    assert {pair.row for pair in compare(HALF, ablation).pairs} == {"vanilla"}
    assert {pair.row for pair in compare(ablation, ablation).pairs} == {"vanilla", "EMA"}
    with pytest.raises(UsageError, match="it has no row of the other's: mini-ema; vanilla, EMA"):
        compare(ablation, BETTER)


def test_text_markdown_and_page_have_every_figure() -> None:
    found = compare(HALF, BETTER)
    page, markdown = unescape(as_html([found])), as_markdown(found)
    for pair in found.pairs:
        difference = spelled(pair.difference, signed=True, digits=2 if pair.task is None else 3)
        for report in (as_text(comparison_blocks(found)), markdown):
            assert difference in report
            assert spelled_p(pair.p_value) in report
        assert difference.split(" ")[0] in page
    assert markdown in page
    json.dumps(found.as_record(), allow_nan=False)


@pytest.mark.parametrize("content", [None, "", "{", "[]\n", '{"schema": "vlinstruct.ask/1"}\n', "\u20ac\n"])
def test_what_is_no_run_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "records.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match="cannot compare with"):
        read_run(tmp_path)


@pytest.mark.parametrize("results", [None, "{", "[]", "{}", json.dumps({**RESULTS, "thresholds": {"x": 1}})])
def test_results_of_another_version_are_told_how_to_be_renewed(results: str | None, tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in HALF.records))
    if results is not None:
        (tmp_path / "results.json").write_text(results)
    with pytest.raises(UsageError, match=r"earlier version\. Run its command again: it answers nothing anew"):
        read_run(tmp_path)


def test_a_run_is_its_folder_or_its_results_and_two_tables_are_compared_one_by_one(tmp_path: Path) -> None:
    for folder, of_run in ((tmp_path / "a" / "mini", HALF), (tmp_path / "b", BETTER)):
        folder.mkdir(parents=True)
        (folder / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in of_run.records))
        (folder / "results.json").write_text(json.dumps(of_run.results))
    (found,) = compare_evaluations(tmp_path / "a" / "mini", tmp_path / "b" / "results.json")
    assert found.pairs == compare(HALF, BETTER).pairs
    (same,) = compare_evaluations(tmp_path / "a", tmp_path / "a")
    assert same.first.folder == tmp_path / "a" / "mini"


def test_without_a_right_answer_there_are_no_points_and_tasks_are_compared_still() -> None:
    found = compare(run(["no"] * 40), BETTER)
    assert {pair.verdict for pair in found.pairs if pair.task is None} == {"undefined"}
    assert {pair.verdict for pair in found.pairs if pair.task is not None} == {"better"}
    assert "Nothing can be said: poor words, plain." in as_text(comparison_blocks(found))
