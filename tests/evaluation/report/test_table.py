"""The table is the metric over the records, and its intervals are what resampled items give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlinstruct.evaluation.benchmark import WORDS, Task
from vlinstruct.evaluation.report.columns import COLUMNS, role_of, wording_of
from vlinstruct.evaluation.report.scores import TaskSize, task_interval
from vlinstruct.evaluation.report.table import Cell, Table, read_table
from vlinstruct.evaluation.report.text import Block, as_record, as_text, findings, table_blocks, without_nan
from vlinstruct.metrics.bootstrap import Interval
from vlinstruct.metrics.roc_auc import roc_auc
from vlinstruct.settings import Thresholds

GQA = Task(name="gqa", metric="accuracy")
VISDIAL = Task(name="visdial", metric="mrr")
MEMES = Task(name="hatefulmemes", metric="roc_auc")


def said(text: str, ias: float | None, answer: Any) -> dict[str, Any]:
    known = {"faults": [], "judged_answer": answer, "certainty": 0.5, "cross_nll": 0.5}
    return {"text": text, "ias": ias, "answer": answer, **known}


def record(name: str, initial: Any, rewritten: Any, optimized: Any, *, chosen: str = "optimized") -> dict[str, Any]:
    roles = {
        "initial": said("i", 2.0, initial),
        "rewritten": said("r", 1.0, rewritten),
        "optimized": said("o", 1.5, optimized),
    }
    task = name.rsplit("/", 1)[1].split("-")[0]
    return {"id": name, "task": task, "references": ["yes"], **roles, "chosen": chosen, "reason": "why"}


def write(folder: Path, records: list[dict[str, Any]]) -> None:
    (folder / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    stages = {
        "see": 0.001,
        "answer": 0.002,
        "greedy": 0.002,
        "rewrite": 0.004,
        "score": 0.008,
        "compare": 0.016,
        "judge": 0.032,
    }
    taken = [
        {"model": model, "words": words, "task": one, **stages}
        for model in ("a", "b")
        for words in WORDS
        for one in ("gqa", "visdial", "hatefulmemes")
    ]
    (folder / "times.jsonl").write_text("".join(json.dumps(one) + "\n" for one in taken))


def gqa_records(model: str, answers: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Of each kind of words the initial instruction's answers; rewriting makes all right, comparing all wrong."""
    return [
        record(f"{model}/{words}/gqa-{number}", answer, "yes", "no")
        for words in WORDS
        for number, answer in enumerate(answers[words])
    ]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    right, half, none = ["yes"] * 4, ["yes", "yes", "no", "no"], ["no"] * 4
    records = gqa_records("a", {"canonical": half, "paraphrased": half, "poor": none})
    records += gqa_records("b", {"canonical": right, "paraphrased": half, "poor": half})
    write(tmp_path, records)
    return read_table(tmp_path, [GQA], ["a", "b"], seed=0)


def test_averages_are_relative_to_the_first_models_canonical_answers(table: Table) -> None:
    expected = {
        Cell("a", "canonical", "plain"): 100,
        Cell("b", "canonical", "plain"): 200,
        Cell("a", "poor", "plain"): 0,
        Cell("a", "poor", "rewritten"): 200,
        Cell("a", "poor", "AIO paper"): 0,
        Cell("a", "poor", "always canonical"): 100,
        Cell("b", "poor", "lowest of pair"): 200,
    }
    assert {cell: table.average(cell).value for cell in expected} == expected


def test_what_costs_nothing_to_choose_costs_no_time(table: Table) -> None:
    assert table.seconds[Cell("a", "poor", "plain")] == pytest.approx(0.003)
    assert table.seconds[Cell("a", "poor", "rewritten")] == pytest.approx(0.007)
    assert table.seconds[Cell("a", "poor", "lowest of pair")] == pytest.approx(0.015)
    assert table.seconds[Cell("a", "poor", "AIO ias")] == pytest.approx(0.031)
    for column in ("AIO cross", "AIO agree", "AIO safe"):
        assert table.seconds[Cell("a", "poor", column)] == pytest.approx(0.063)


def test_items_that_are_left_alone_cost_safe_their_plain_answer(tmp_path: Path) -> None:
    records = gqa_records("a", {words: ["yes"] * 4 for words in WORDS})
    for one in records:
        one["initial"]["certainty"] = 0.9 if one["id"].endswith(("0", "1", "2")) else None
    write(tmp_path, records)
    table = read_table(tmp_path, [GQA], ["a"], seed=0)
    assert table.seconds[Cell("a", "poor", "AIO safe")] == pytest.approx(0.003 + 0.06 / 4)
    assert table.seconds[Cell("a", "poor", "AIO cross")] == pytest.approx(0.063)


@pytest.mark.parametrize(
    ("changes", "roles"),
    [
        ({}, ["rewritten"] * 4),
        ({"initial": {"certainty": 0.9}}, ["initial", *["rewritten"] * 3]),
        ({"initial": {"certainty": 0.6}}, ["rewritten"] * 4),  # as certain as the threshold is not above it
        ({"rewritten": {"cross_nll": 2.0}}, ["optimized", "optimized", "rewritten", "rewritten"]),
        ({"rewritten": {"cross_nll": 1e9, "judged_answer": "b"}}, ["optimized"] * 3 + ["rewritten"]),
        ({"rewritten": {"cross_nll": None, "judged_answer": "b"}}, ["optimized"] * 3 + ["rewritten"]),
        ({"rewritten": {"judged_answer": "b"}}, ["rewritten", "rewritten", "optimized", "rewritten"]),
        ({"rewritten": {"faults": ["is blank"]}}, ["optimized"] * 4),
        ({"rewritten": {"written_certainty": 0.1}}, ["optimized"] * 4),
    ],
)
def test_a_rule_chooses_by_what_a_record_knows(changes: dict[str, dict[str, Any]], roles: list[str]) -> None:
    one = record("a/poor/gqa-0", "a", "a", "a")
    for role, fields in changes.items():
        one[role] |= fields
    thresholds = Thresholds(least_certainty=0.2, max_cross_nll=1.5, sure_above=0.6)
    columns = ("AIO safe", "AIO cross", "AIO agree", "AIO ias")
    assert [role_of(one, column, thresholds) for column in columns] == roles
    assert role_of(one, "AIO paper", thresholds) == "optimized"


def test_where_no_item_differs_more_items_leave_less_room_for_a_difference(tmp_path: Path) -> None:
    widths = []
    for num_items in (4, 40):
        write(tmp_path, gqa_records("a", {words: ["yes"] * num_items for words in WORDS}))
        table = read_table(tmp_path, [GQA], ["a"], seed=0)
        same, plain = Cell("a", "poor", "rewritten"), Cell("a", "poor", "plain")
        found = (table.difference(same, plain), table.task_difference(same, plain, "gqa"), table.average(same))
        assert [interval.value for interval in found] == [0, 0, 100]
        assert all(interval.low < interval.value < interval.high for interval in found)
        assert table.average(table.base) == Interval(value=100, low=100, high=100)  # by definition
        assert table.p_value(same, plain) == table.task_p_value(same, plain, "gqa") == 1
        widths.append([interval.high - interval.low for interval in found])
    assert all(many < few / 5 for few, many in zip(*widths, strict=True))


def test_a_difference_is_tested_item_by_item_and_of_right_and_wrong_answers_as_mcnemar_does(table: Table) -> None:
    rewritten, plain = Cell("a", "poor", "rewritten"), Cell("a", "poor", "plain")
    assert table.task_p_value(rewritten, plain, "gqa") == 2 / 2**4  # four of four were wrong and are right
    assert table.p_value(plain, rewritten) == table.task_p_value(rewritten, plain, "gqa")
    assert table.num_differing(rewritten, plain, "gqa") == 4
    half = Cell("b", "poor", "plain")
    assert table.task_p_value(half, plain, "gqa") == 2 / 2**2


def test_an_area_is_tested_by_swapping_ranks(tmp_path: Path) -> None:
    records = []
    for number in range(12):
        label = "yes" if number % 2 else "no"
        good, blind = ([1.0, 2.0] if label == "yes" else [2.0, 1.0]), [1.0, 1.0 + number / 100]
        one = record(f"a/canonical/hatefulmemes-{number:02}", blind, good, blind)
        records.append({**one, "candidates": ["yes", "no"], "references": [label]})
    gqa = [record(f"a/canonical/gqa-{number}", "yes", "yes", "yes") for number in range(12)]
    write(tmp_path, records + gqa)
    table = read_table(tmp_path, [GQA, MEMES], ["a"], seed=0)
    rewritten, plain = Cell("a", "canonical", "rewritten"), Cell("a", "canonical", "plain")
    assert table.task_p_value(rewritten, plain, "hatefulmemes") < 0.05
    assert table.p_value(rewritten, plain) < 0.05
    assert table.task_p_value(Cell("a", "canonical", "AIO paper"), plain, "hatefulmemes") == 1


def test_the_recovered_share_and_the_interaction_are_what_they_say(table: Table) -> None:
    assert table.recovered("a", "rewritten").value == 2.0  # from 0 to 200, where 100 was lost
    gains = {model: table.average(Cell(model, "poor", "rewritten")).value for model in "ab"}
    plain = {model: table.average(Cell(model, "poor", "plain")).value for model in "ab"}
    expected = (gains["b"] - plain["b"]) - (gains["a"] - plain["a"])
    assert table.interaction("b", "poor", "rewritten").value == expected


def test_the_same_seed_gives_the_same_table(tmp_path: Path, table: Table) -> None:
    again = read_table(tmp_path, [GQA], ["a", "b"], seed=0)
    facts = {"id": "x"}
    assert as_record(table, facts) == as_record(again, facts)
    assert as_text(table_blocks(table)) == as_text(table_blocks(again))


def test_every_cell_has_a_line_and_a_second_model_its_interaction(table: Table) -> None:
    assert table.columns == tuple(column for column in COLUMNS if column != "plain, greedy")
    averages = [one for one in table_blocks(table) if isinstance(one, Block) and "chosen by" in one.heads]
    assert sum(len(block.rows) for block in averages) == len(table.models) * len(table.words) * len(table.columns)
    assert "b x AIO (safe), poor words" in findings(table)


def test_a_share_of_next_to_no_loss_is_not_claimed(tmp_path: Path) -> None:
    answers = {words: ["yes"] * 4 for words in WORDS}
    write(tmp_path, gqa_records("a", answers) + gqa_records("b", answers))
    assert not [name for name in findings(read_table(tmp_path, [GQA], ["a", "b"], seed=0)) if "share" in name]


def test_greedy_answers_stand_beside_those_of_the_beams(tmp_path: Path) -> None:
    records = gqa_records("a", {words: ["yes"] * 4 for words in WORDS})
    write(tmp_path, [{**one, "greedy": said("i", 2.0, "no" if "gqa-0" in one["id"] else "yes")} for one in records])
    table = read_table(tmp_path, [GQA], ["a"], seed=0)
    scores = [table.task_score(Cell("a", "poor", column), "gqa").value for column in ("plain", "plain, greedy")]
    assert scores == [1.0, 0.75]
    assert "a, canonical, plain, greedy" in as_text(table_blocks(table))


@pytest.mark.parametrize(
    ("task", "top"), [(Task(name="memes", metric="roc_auc"), 1.0), (Task(name="c", metric="cider"), 10.0)]
)
def test_where_all_resamples_are_alike_the_interval_is_wilsons_on_the_metrics_own_scale(task: Task, top: float) -> None:
    found, method = task_interval(task, np.full(2001, top), TaskSize(num_items=10, num_skipped=0, smaller_class=3))
    assert method == "wilson"
    assert 0.3 * top < found.low < 0.9 * top < found.value == found.high == top


@pytest.mark.slow
def test_ranked_answers_are_scored_by_rank_and_by_auc(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    records = []
    for model in ("a", "b"):
        for words in WORDS:
            for number in range(6):
                nll = rng.random(3).tolist()
                one = record(f"{model}/{words}/visdial-{number}", nll, nll, nll)
                records.append({**one, "candidates": ["no", "yes", "red"]})
                pair = rng.random(2).tolist()
                one = record(f"{model}/{words}/hatefulmemes-{number}", pair, pair, pair)
                records.append({**one, "candidates": ["yes", "no"], "references": [["yes", "no"][number % 2]]})
    write(tmp_path, records)
    table = read_table(tmp_path, [VISDIAL, MEMES], ["a", "b"], seed=0)
    cell = Cell("b", "poor", "plain")
    mine = [one for one in records if one["id"].startswith("b/poor/")]
    ranks = [
        1 + sum(value < one["initial"]["answer"][1] for value in one["initial"]["answer"])
        for one in mine
        if one["task"] == "visdial"
    ]
    assert table.task_score(cell, "visdial").value == pytest.approx(np.mean([1 / rank for rank in ranks]))
    memes = [one for one in mine if one["task"] == "hatefulmemes"]
    margins = [one["initial"]["answer"][1] - one["initial"]["answer"][0] for one in memes]
    expected = roc_auc([one["references"] == ["yes"] for one in memes], margins)
    assert table.task_score(cell, "hatefulmemes").value == pytest.approx(expected)


def test_the_lowest_of_the_pair_is_the_initial_one_on_ties_and_where_nothing_is_finite() -> None:
    one = record("a/poor/gqa-0", "i", "r", "o")
    assert wording_of(one, "lowest of pair", Thresholds())["answer"] == "r"
    tied = {**one, "rewritten": said("r", 2.0, "r")}
    assert wording_of(tied, "lowest of pair", Thresholds())["answer"] == "i"
    unknown = {**one, "initial": said("i", None, "i"), "rewritten": said("r", None, "r")}
    assert wording_of(unknown, "lowest of pair", Thresholds())["answer"] == "i"


def test_vqa_accuracy_is_that_of_the_normalizer(tmp_path: Path) -> None:
    vizwiz = Task(name="vizwiz", metric="vqa_accuracy")
    said = [record(f"a/canonical/vizwiz-{number}", "dog", "dog", "dog") for number in range(2)]
    write(tmp_path, [{**one, "references": ["a dog", "the dog", "dog", "dogs"]} for one in said])
    cell = Cell("a", "canonical", "plain")
    scores = {
        normalizer: read_table(tmp_path, [vizwiz], ["a"], seed=0, normalizer=normalizer)
        .task_score(cell, "vizwiz")
        .value
        for normalizer in ("official", "lavis", "evalai")
    }
    assert scores["official"] == scores["evalai"] == pytest.approx((2 / 3 * 3 + 1) / 4)
    assert scores["lavis"] == pytest.approx(3 / 4 / 3)


def answered(task: str, answers: list[Any], **fields: Any) -> list[dict[str, Any]]:
    """Records of a task in which every instruction got the same answer."""
    return [
        {**record(f"a/{words}/{task}-{number}", answer, answer, answer), **fields}
        for words in WORDS
        for number, answer in enumerate(answers)
    ]


def test_an_area_of_one_class_is_undefined_everywhere_and_leaves_the_average_to_the_others(tmp_path: Path) -> None:
    one_class = answered("hatefulmemes", [[0.5, 1.5]] * 4, candidates=["yes", "no"], references=["yes"])
    write(tmp_path, answered("gqa", ["yes", "yes", "no", "no"]) + one_class)
    table = read_table(tmp_path, [GQA, MEMES], ["a"], seed=0)
    text, cells = as_text(table_blocks(table)), as_record(table, {"id": "x"})["cells"]
    assert "average over 1 task of 2" in text
    assert "hatefulmemes (roc_auc): 4 items, all of one class" in text
    assert "0.500" not in text.split("hatefulmemes (roc_auc)")[1]
    assert all(np.isnan(cell["tasks"]["hatefulmemes"]["value"]) for cell in cells)
    assert {cell["tasks"]["hatefulmemes"]["method"] for cell in cells} == {"none"}
    assert table.average(Cell("a", "poor", "plain")).value == 100
    assert without_nan(cells[0]["tasks"]["hatefulmemes"])["value"] is None


def test_shares_have_wilsons_interval_and_say_of_how_many_items(tmp_path: Path) -> None:
    write(tmp_path, answered("gqa", ["yes"] * 5))
    cell = as_record(read_table(tmp_path, [GQA], ["a"], seed=0), {"id": "x"})["cells"][0]["tasks"]["gqa"]
    assert (cell["value"], cell["high"], cell["n"], cell["method"]) == (1.0, 1.0, 5, "wilson")
    assert cell["low"] == pytest.approx(1 / (1 + 1.959963985**2 / 5))  # Wilson's, of all right


def test_the_right_candidate_is_found_by_its_place_among_equal_texts(tmp_path: Path) -> None:
    same = {"candidates": ["no", "maybe", "no"], "references": ["no"]}
    write(tmp_path, answered("visdial", [[1.0, 2.0, 1.5]], target=2, **same))
    assert read_table(tmp_path, [VISDIAL], ["a"], seed=0).task_score(Cell("a", "poor", "plain"), "visdial").value == 0.5
    write(tmp_path, answered("visdial", [[1.0, 2.0, 1.0]], target=2, **same))  # the first of equals comes first
    assert read_table(tmp_path, [VISDIAL], ["a"], seed=0).task_score(Cell("a", "poor", "plain"), "visdial").value == 0.5


def test_lavis_normalisation_stands_beside_exact_match_where_they_differ(tmp_path: Path) -> None:
    write(tmp_path, answered("gqa", ["a table", "Table.", "chair", "two"], references=["table"]))
    table = read_table(tmp_path, [GQA], ["a"], seed=0)
    cell = Cell("a", "canonical", "plain")
    lavis = table.lavis_score(cell, "gqa")
    assert lavis is not None
    assert (table.task_score(cell, "gqa").value, lavis.value) == (0.25, 0.5)
    assert "with LAVIS' normalisation" in as_text(table_blocks(table))
    write(tmp_path, answered("gqa", ["table", "chair"], references=["table"]))
    assert read_table(tmp_path, [GQA], ["a"], seed=0).lavis_score(cell, "gqa") is None


def test_an_item_that_is_missing_in_one_cell_counts_in_none(tmp_path: Path) -> None:
    records = answered("gqa", ["yes", "no", "no"])
    failed = {"id": "a/poor/gqa-0", "task": "gqa", "status": "error", "code": "image_missing", "message": "why"}
    write(tmp_path, [failed if one["id"] == failed["id"] else one for one in records])
    table = read_table(tmp_path, [GQA], ["a"], seed=0)
    assert (table.sizes["gqa"].num_items, table.sizes["gqa"].num_skipped) == (2, 1)
    assert table.task_score(Cell("a", "canonical", "plain"), "gqa").value == 0
    write(tmp_path, [{**failed, "id": one["id"]} for one in records])
    assert "undefined" in as_text(table_blocks(read_table(tmp_path, [GQA], ["a"], seed=0)))
