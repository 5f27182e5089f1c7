"""The cases of a page: failures first, then what changed, judged by the task's metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlinstruct.evaluation.benchmark import Item, Task, Words
from vlinstruct.evaluation.report.cases import NUM_CASES, NUM_CHANGED, NUM_FAILURES, Cases, sample_cases
from vlinstruct.evaluation.report.table import read_table

from .test_table import GQA, MEMES, VISDIAL, record, write

NUM_ITEMS = 30


def item(number: int, task: str = "gqa") -> Item:
    asked: dict[Words, str] = {"canonical": "c", "paraphrased": "p", "poor": "i"}
    return Item(
        id=f"{task}-{number}",
        task=task,
        load_picture=lambda: Image.new("RGB", (4, 4), (number, 0, 0)),
        instructions=asked,
        references=("yes",),
    )


def records(num_wrong: int, text: str = "no", num_mended: int = 0, task: str = "gqa") -> list[dict[str, Any]]:
    """Items of which some are wrong however they are asked poorly, and the last become right."""
    return [
        record(
            f"a/{words}/{task}-{number}",
            text if words == "poor" and not num_wrong <= number < NUM_ITEMS - num_mended else "yes",
            text if words == "poor" and number < num_wrong else "yes",
            text if words == "poor" and number < num_wrong else "yes",
        )
        for words in ("canonical", "paraphrased", "poor")
        for number in range(NUM_ITEMS)
    ]


def cases_of(folder: Path, said: list[dict[str, Any]], task: Task = GQA, seed: int = 0) -> Cases:
    write(folder, said)
    items = [item(number, task.name) for number in range(NUM_ITEMS)]
    return sample_cases(said, items, read_table(folder, [task], ["a"], seed=0), model="a", seed=seed)


@pytest.mark.parametrize(("num_wrong", "least"), [(0, 0), (3, 3), (4, NUM_FAILURES), (25, NUM_FAILURES)])
def test_a_dozen_cases_hold_at_least_four_failures_or_all_there_are(num_wrong: int, least: int, tmp_path: Path) -> None:
    shown = cases_of(tmp_path, records(num_wrong)).shown
    assert len({case.item.id for case in shown}) == NUM_CASES
    assert all(case.is_failure for case in shown[:least])
    assert sum(case.is_failure for case in shown) >= least


def test_then_come_changed_answers_which_are_counted(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, records(2, num_mended=9))
    assert [case.is_failure for case in cases.shown[:2]] == [True, True]
    assert all(case.is_changed for case in cases.shown[2 : 2 + NUM_CHANGED])
    assert (cases.num_items, cases.num_changed, cases.num_mended, cases.num_spoilt) == (NUM_ITEMS, 9, 9, 0)


def test_the_seed_decides_what_is_drawn(tmp_path: Path) -> None:
    first, again, other = (
        [case.item.id for case in cases_of(tmp_path, records(9), seed=seed).shown] for seed in (0, 0, 1)
    )
    assert first == again != other


def test_fewer_items_are_all_shown(tmp_path: Path) -> None:
    few = [one for one in records(0) if one["id"].endswith(("-0", "-7"))]
    assert sorted(case.item.id for case in cases_of(tmp_path, few).shown) == ["gqa-0", "gqa-7"]


def test_a_ranked_answer_is_the_likeliest_candidate_and_judged_by_its_rank(tmp_path: Path) -> None:
    said = [
        {**record(f"a/{words}/visdial-0", [2.0, 1.0], [1.0, 2.0], [2.0, 1.0]), "candidates": ["yes", "no"]}
        for words in ("canonical", "poor")
    ]
    (case,) = cases_of(tmp_path, said, VISDIAL).shown
    found = [(one.role, one.text, one.score, one.is_right) for one in case.answers]
    assert found[:2] == [("initial", "no", 0.5, False), ("rewritten", "yes", 1.0, True)]


def test_of_an_area_an_item_is_right_where_the_right_label_is_the_likelier_one(tmp_path: Path) -> None:
    said = [
        {
            **record(f"a/{words}/hatefulmemes-{number}", [1.0, 2.0], [2.0, 1.0], [1.0, 2.0]),
            "candidates": ["yes", "no"],
            "references": [label],
        }
        for words in ("canonical", "poor")
        for number, label in enumerate(("yes", "no"))
    ]
    shown = cases_of(tmp_path, said, MEMES).shown
    assert {case.reference: [one.is_right for one in case.answers[:2]] for case in shown} == {
        "yes": [True, False],
        "no": [False, True],
    }


def test_of_several_peoples_answers_each_is_right_for_some_and_the_commonest_is_shown(tmp_path: Path) -> None:
    vqa = Task(name="vizwiz", metric="vqa_accuracy")
    said = records(0, task="vizwiz")
    for one in said:
        one["references"] = ["a", *["b"] * 9]
        one["initial"]["answer"], one["rewritten"]["answer"] = "a", "b"
    (case, *_) = cases_of(tmp_path, said, vqa).shown
    assert (case.reference, case.answers[0].is_right, case.answers[2].is_right) == ("b", True, False)
    assert 0 < case.answers[0].score < case.answers[1].score == 1


def test_a_caption_is_neither_right_nor_wrong_and_has_its_own_cider(tmp_path: Path) -> None:
    captions = Task(name="nocaps", metric="cider")
    said = [
        {**one, "references": ["a red star on blue", "one star"]}
        for one in records(NUM_ITEMS, "a red star", task="nocaps")
    ]
    shown = cases_of(tmp_path, said, captions).shown
    assert {answer.is_right for case in shown for answer in case.answers} == {None}
    assert not any(case.is_failure for case in shown)
    assert all(case.answers[0].text == "a red star" and case.answers[0].score >= 0 for case in shown)
