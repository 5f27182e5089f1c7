"""The page of an evaluation and that of a comparison in a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlinstruct.evaluation.benchmark import WORDS, Item, Task
from vlinstruct.evaluation.report.cases import sample_cases
from vlinstruct.evaluation.report.comparison import Run, compare
from vlinstruct.evaluation.report.comparison_report import as_html as comparison_html
from vlinstruct.evaluation.report.page import as_html
from vlinstruct.evaluation.report.table import Table, table_of
from vlinstruct.settings import Thresholds

from .conftest import DESK, HOSTILE, PHONE, OpenWindow

NUM_ITEMS = 40
TASKS = [Task(name="gqa", metric="accuracy"), Task(name="nocaps", metric="cider")]


def record(row: str, words: str, task: str, number: int) -> dict[str, Any]:
    hostile = HOSTILE[number % len(HOSTILE)]

    def wording(answer: str) -> dict[str, Any]:
        known = {"faults": [], "judged_answer": answer, "certainty": 0.5, "cross_nll": 0.5}
        return {"text": hostile, "ias": 2.0, "answer": answer, **known}

    right = f"a red star and the number {number}"
    typed = hostile if words == "poor" and number % 3 else right
    roles = {"initial": wording(typed), "rewritten": wording(right), "optimized": wording("a star")}
    head = {"id": f"{row}/{words}/{task}-{number}", "status": "ok", "task": task, "references": [right]}
    return {**head, **roles, "chosen": "rewritten", "reason": hostile}


def records(rows: list[str]) -> list[dict[str, Any]]:
    return [
        record(row, words, task.name, number)
        for row in rows
        for words in WORDS
        for task in TASKS
        for number in range(NUM_ITEMS)
    ]


def evaluation_page() -> str:
    rows = ["vanilla", HOSTILE[0], "w" * 300]
    said = records(rows)
    table: Table = table_of(said, TASKS, dict.fromkeys(rows, Thresholds()), seed=0)
    items = [
        Item(
            id=f"{task.name}-{number}",
            task=task.name,
            load_picture=lambda: Image.new("RGB", (90, 30), "orange"),
            instructions=dict.fromkeys(WORDS, "?"),
            references=tuple(HOSTILE),
        )
        for task in TASKS
        for number in range(NUM_ITEMS)
    ]
    cases = sample_cases(said, items, table, model=rows[0], seed=0)
    return as_html(table, cases, {"id": HOSTILE[1], "backbone": HOSTILE[2], "items": {"gqa": NUM_ITEMS}})


def comparison_page() -> str:
    results = {"id": "x", "backbone": HOSTILE[3], "metrics": {task.name: task.metric for task in TASKS}}
    results["thresholds"] = {"least_certainty": 0.8, "max_cross_nll": 1.5, "sure_above": 0.75}
    runs = [Run(folder=Path(row[:50]), results=results, records=records([row])) for row in (HOSTILE[0], "EMA")]
    return comparison_html([compare(*runs)])


@pytest.fixture(scope="module", params=[evaluation_page, comparison_page])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    make: Callable[[], str] = request.param
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(make(), encoding="utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_it_is_accessible_fits_every_width_and_loads_nothing(
    page: Path, window: OpenWindow, width: int, dark: bool
) -> None:
    with window(page, width=width, dark=dark) as opened:
        assert opened.findings() == []
        assert opened.width() == width
        assert opened.problems == []
        assert opened.page.title() != "run"
        assert opened.page.locator("h1").count() == 1


def test_all_figures_are_copied_by_the_keyboard_alone(page: Path, window: OpenWindow) -> None:
    with window(page) as opened:
        summary = opened.page.locator("summary").last
        summary.focus()
        opened.page.keyboard.press("Enter")
        opened.page.keyboard.press("Tab")
        assert opened.page.evaluate("document.activeElement.textContent") == "Copy"
        opened.page.keyboard.press("Enter")
        opened.page.locator("[role=status]:not(:empty)").wait_for()
        if "Selected" in opened.page.locator("[role=status]").inner_text():
            copied = opened.page.evaluate("getSelection().toString()")
        else:
            copied = opened.page.locator("#markdown").inner_text()
        assert copied.startswith("# ")
        assert json.dumps(copied).count("|") > 100


def test_pictures_stand_in_boxes_of_one_size_and_drawings_are_hidden_from_who_cannot_see_them(
    tmp_path: Path, window: OpenWindow
) -> None:
    (tmp_path / "page.html").write_text(evaluation_page(), encoding="utf-8")
    with window(tmp_path / "page.html") as opened:
        boxes = [box.bounding_box() for box in opened.page.locator(".case .picture").all()]
        assert len(boxes) == 12
        assert len({(round(box["width"]), round(box["height"])) for box in boxes}) == 1
        assert opened.page.locator("svg:not([aria-hidden=true])").count() == 0
        assert all(image.get_attribute("alt") for image in opened.page.locator("img").all())
