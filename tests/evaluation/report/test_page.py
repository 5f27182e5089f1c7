"""The page shows what the records say: cases drawn by seed with their failures, in text that is no markup."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlinstruct.evaluation.benchmark import Item, Words
from vlinstruct.evaluation.report.page import NUM_CASES, NUM_FAILURES, Case, as_html, as_svg, sample_cases
from vlinstruct.evaluation.report.table import COLUMNS, MEANINGS, Table, read_records, read_table

from .test_table import GQA, record, write

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


def records(num_wrong: int, text: str = "no") -> list[dict[str, Any]]:
    """Thirty items of which some are wrong however they are asked poorly."""
    return [
        record(f"a/{words}/gqa-{number}", *[text if words == "poor" and number < num_wrong else "yes"] * 3)
        for words in ("canonical", "paraphrased", "poor")
        for number in range(NUM_ITEMS)
    ]


ITEMS = [item(number) for number in range(NUM_ITEMS)]


def ids(cases: Sequence[Case]) -> list[str]:
    return [case.item.id for case in cases]


@pytest.mark.parametrize(("num_wrong", "least"), [(0, 0), (3, 3), (4, NUM_FAILURES), (25, NUM_FAILURES)])
def test_a_dozen_cases_hold_at_least_four_failures_or_all_there_are(num_wrong: int, least: int) -> None:
    cases = sample_cases(records(num_wrong), ITEMS, model="a", seed=0)
    assert len(set(ids(cases))) == NUM_CASES
    assert all(case.is_failure for case in cases[:least])
    assert sum(case.is_failure for case in cases) >= least


def test_the_seed_decides_what_is_drawn() -> None:
    first, again, other = (ids(sample_cases(records(9), ITEMS, model="a", seed=seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_fewer_items_are_all_shown() -> None:
    assert len(sample_cases(records(0), ITEMS[:5], model="a", seed=0)) == 5


def test_a_ranked_answer_is_the_likeliest_candidate() -> None:
    said = [
        {**record(f"a/{words}/visdial-0", [2.0, 1.0], [1.0, 2.0], [2.0, 1.0]), "candidates": ["yes", "no"]}
        for words in ("canonical", "poor")
    ]
    (case,) = sample_cases(said, [item(0, "visdial")], model="a", seed=0)
    found = [(one.role, one.text, one.is_right) for one in case.answers]
    assert found[:2] == [("initial", "no", False), ("rewritten", "yes", True)]
    assert case.is_failure


def test_of_several_peoples_answers_each_is_right_and_the_commonest_is_shown() -> None:
    said = [{**one, "references": ["a", "b", "b"]} for one in records(0)]
    for one in said:
        one["initial"]["answer"] = "a"
    (case, *_) = sample_cases(said, ITEMS[:1], model="a", seed=0)
    assert (case.reference, case.answers[0].is_right, case.answers[1].is_right) == ("b", True, False)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    write(tmp_path, records(9) + [{**one, "id": one["id"].replace("a/", "b/", 1)} for one in records(0)])
    assert len(read_records(tmp_path)) == 2 * 3 * NUM_ITEMS
    return read_table(tmp_path, [GQA], ["a", "b"], seed=0)


def test_the_drawing_has_a_dot_for_every_cell_inside_its_frame(table: Table) -> None:
    root = ET.fromstring(as_svg(table))
    _, _, width, height = (float(number) for number in root.attrib["viewBox"].split())
    dots = [node for node in root if node.tag.endswith("circle")]
    assert len(dots) == 2 * 3 * len(table.columns) + 2  # models, kinds of words, ways to choose; the legend
    assert all(0 < float(dot.attrib["cx"]) < width and 0 < float(dot.attrib["cy"]) < height for dot in dots)


class Reader(HTMLParser):
    """Collects a page's tags and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.said = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.said += data


def test_an_answer_is_text_and_never_markup(table: Table) -> None:
    cases = sample_cases(records(NUM_ITEMS, "<script>alert(1)</script>\x1b[2J"), ITEMS, model="a", seed=0)
    reader = Reader()
    reader.feed(as_html(table, cases, {"id": "<b>", "seed": 0}))
    assert "script" not in reader.tags
    assert reader.said.count("<script>alert(1)</script>\\x1b[2J") == 3 * NUM_CASES
    assert reader.tags.count("img") == NUM_CASES
    assert "12 are failures" in reader.said


def test_a_caption_is_neither_right_nor_wrong_and_its_references_are_all_there() -> None:
    captioned = [{**one, "references": ["a red star", "one star"]} for one in records(NUM_ITEMS, text="a star")]
    cases = sample_cases(captioned, ITEMS, model="a", seed=0, captions={"gqa"})
    assert {answer.is_right for case in cases for answer in case.answers} == {None}
    assert not any(case.is_failure for case in cases)


def test_the_page_says_what_its_columns_and_its_tasks_are(table: Table) -> None:
    page = unescape(as_html(table, [], {"id": "a/b", "items": {"gqa": 12, "vsr": 3}}))
    assert "items: gqa 12, vsr 3" in page
    assert set(MEANINGS) == set(COLUMNS)
    for column in table.columns:
        assert f"{column}: {MEANINGS[column]}" in page
