"""The page says what the table does: a verdict, every figure, and cases, in text that is no markup."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from vlinstruct.evaluation.report.cases import Cases, sample_cases
from vlinstruct.evaluation.report.columns import COLUMNS, MEANINGS
from vlinstruct.evaluation.report.markdown import as_markdown
from vlinstruct.evaluation.report.page import as_html
from vlinstruct.evaluation.report.table import Cell, Table, read_table
from vlinstruct.evaluation.report.text import as_text, facts_in_words, spelled, table_blocks
from vlinstruct.evaluation.report.verdict import Kind, kind_of, verdicts
from vlinstruct.metrics.bootstrap import Interval

from .test_cases import NUM_ITEMS, item, records
from .test_table import GQA, write

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e|`"
FACTS = {"id": "<b>", "backbone": HOSTILE, "items": {"gqa": 1200, "vsr": 3}, "vqa_normalizer": "official"}


@pytest.fixture
def table(tmp_path: Path) -> Table:
    write(tmp_path, records(9) + [{**one, "id": one["id"].replace("a/", "b/", 1)} for one in records(0)])
    return read_table(tmp_path, [GQA], ["a", "b"], seed=0)


@pytest.fixture
def cases(table: Table) -> Cases:
    said = records(NUM_ITEMS, HOSTILE)
    items = [replace(item(number), references=("yes", HOSTILE)) for number in range(NUM_ITEMS)]
    return sample_cases(said, items, table, model="a", seed=0)


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


def test_an_answer_is_text_and_never_markup(table: Table, cases: Cases) -> None:
    reader = Reader()
    reader.feed(as_html(table, cases, FACTS))
    assert reader.tags.count("script") == 1  # our own
    assert reader.said.count("<script>alert(1)</script>\\x1b[2J\\u202e|`") >= len(cases.shown)
    assert reader.tags.count("img") == len(cases.shown)
    assert "https://" not in reader.said.replace("https://arxiv.org", "")


def test_markdown_has_every_figure_and_no_text_that_ends_a_cell(table: Table) -> None:
    markdown = as_markdown(table, FACTS)
    for cell in table.cells:
        assert spelled(table.task_score(cell, "gqa"), digits=3) in markdown
        assert f"{table.average(cell).value:.2f}" in markdown
    assert "\\<script\\>" in markdown
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {3, 6, 9}
    assert markdown in unescape(as_html(table, replace_cases(table), FACTS))


def replace_cases(table: Table) -> Cases:
    return sample_cases([], [], table, model="a", seed=0)


def test_page_text_and_markdown_say_what_every_word_means(table: Table) -> None:
    assert set(MEANINGS) == set(COLUMNS)
    for report in (
        unescape(as_html(table, replace_cases(table), FACTS)),
        as_text(table_blocks(table)),
        as_markdown(table, FACTS),
    ):
        for column in table.columns:
            assert column in report
            assert MEANINGS[column] in report
        assert "as people type in a hurry" in report


def test_facts_are_said_in_words() -> None:
    assert list(facts_in_words({**FACTS, "backbone": "mini", "image_size": 1024, "new_fact": True})) == [
        ("model", "mini"),
        ("items", "gqa 1,200, vsr 3"),
        ("VQA answers are equal by the rules of", "VQA v2.0's code"),
        ("side of a picture as the model reads it, in pixels", "1,024"),
        ("new fact", "True"),
    ]


@pytest.mark.parametrize(
    ("low", "high", "p_value", "num_items", "unseen", "kind"),
    [
        (0.4, 4.1, 0.01, 100, 0.5, "better"),
        (-4.1, -0.4, 0.01, 100, 0.5, "worse"),
        (0.4, 4.1, 0.06, 100, 0.5, "too few items"),  # the test does not agree
        (-0.1, 4.1, 0.04, 100, 0.5, "too few items"),
        (0.4, 4.1, 0.01, 29, 0.5, "too few items"),
        (-0.5, 0.6, 0.9, 100, 0.5, "no difference"),
        (-0.5, 0.6, 0.9, 100, 4.0, "too few items"),  # hardly any item differs, and there are few
        (float("nan"), float("nan"), 1.0, 100, 0.5, "undefined"),
    ],
)
def test_a_verdict_claims_what_interval_and_test_agree_on(
    low: float, high: float, p_value: float, num_items: int, unseen: float, kind: Kind
) -> None:
    difference = Interval(value=(low + high) / 2, low=low, high=high)
    assert kind_of(difference, p_value, num_items, unseen=unseen) == kind


def test_a_verdict_says_by_how_much_on_how_many_items_in_which_words(tmp_path: Path) -> None:
    write(tmp_path, records(0, num_mended=20))
    table = read_table(tmp_path, [GQA], ["a"], seed=0)
    verdict, *others = verdicts(table)
    found = table.difference(Cell("a", "poor", "AIO safe"), Cell("a", "poor", "plain"))
    assert str(verdict) == (
        f"Optimization helps: in poor words it moves the average by +66.67 points (95 % interval {found.low:+.2f} to "
        f"{found.high:+.2f}), over 1 task and 30 items."
    )
    assert {one.kind for one in others} == {"too few items"}
    assert str(verdict) in as_html(table, replace_cases(table), FACTS)
    assert as_text(table_blocks(table)).startswith(f"{verdict}\n")


def test_where_no_answer_is_right_nothing_is_claimed_and_no_number_is_made_up(tmp_path: Path) -> None:
    write(tmp_path, [one for one in records(NUM_ITEMS) if "/poor/" in one["id"]] + canonical_wrong())
    table = read_table(tmp_path, [GQA], ["a"], seed=0)
    for report in (
        as_html(table, replace_cases(table), FACTS),
        as_text(table_blocks(table)),
        as_markdown(table, FACTS),
    ):
        assert "Nothing can be said of this run in poor words: its tasks have no average." in report
        assert "undefined" in report
        assert not re.search(r"\bnan\b", report.lower())
        assert "the reference" not in report


def canonical_wrong() -> list[dict[str, Any]]:
    return [{**one, "references": ["other"]} for one in records(0) if "/canonical/" in one["id"]]
