"""The report of ask and optimize in a browser: what stands in it, and who reaches it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from command_line import vli
from PIL import Image

from vlinstruct.operations import BatchItem, Fields
from vlinstruct.report.collected import Collector
from vlinstruct.report.page import write_report
from vlinstruct.report.previews import preview_of

from .conftest import DESK, HOSTILE, PHONE, OpenWindow, Window

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
QUESTIONS = ["whats the colr of teh star", "colour of thing?", "how mny things ar ther"]


@pytest.fixture(scope="session")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of mini with its adapter on a star, a clip, and a picture that is none."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "bad.png").write_bytes(b"no picture")
    names = ["star.png", "star.png", "rising_star.mp4", "bad.png"]
    (folder / "data.jsonl").write_text(
        "".join(
            json.dumps({"id": number, "image": str(PICTURES / name if name != "bad.png" else name), "question": text})
            + "\n"
            for number, (name, text) in enumerate(zip(names, [*QUESTIONS, "?"], strict=True))
        )
    )
    options = ["-O", "--when", "always", "--adapter", "mini-ema", "--allow-outside"]
    ended = vli(
        "ask", "--data", folder / "data.jsonl", *options, "--report", folder / "report.html", "-o", folder / "out.jsonl"
    )
    assert ended.exit_code == 3, ended.stderr
    return folder


def open_all(opened: Window) -> None:
    """Opens every part of an item that is built when it is opened."""
    for summary in opened.page.query_selector_all("details:not([open]) > summary"):
        summary.click()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_every_part_of_the_report_is_accessible_light_and_dark_and_fits_every_width(
    answered: Path, window: OpenWindow, width: int, dark: bool
) -> None:
    with window(answered / "report.html", width=width, dark=dark) as opened:
        assert opened.findings() == []  # the list, and on a desk the first item
        for number in range(4):
            opened.page.goto("about:blank")
            opened.page.goto(f"{(answered / 'report.html').as_uri()}#{number + 1}")
            open_all(opened)
            assert opened.findings() == []
            assert opened.width() == width
        assert [problem for problem in opened.problems if "about:blank" not in problem] == []


def test_the_page_says_what_the_records_say(answered: Path, window: OpenWindow) -> None:
    records = [json.loads(line) for line in (answered / "out.jsonl").read_text().splitlines()]
    with window(answered / "report.html") as opened:
        for number, record in enumerate(records):
            opened.page.goto(f"{(answered / 'report.html').as_uri()}#{number + 1}")
            opened.page.reload()
            text = opened.page.locator("#item").inner_text()
            if record["status"] == "error":
                assert record["message"] in text
                continue
            versions = record["optimization"]
            assert record["question"] in text
            assert record["answer"] in text
            assert versions["reason"] in text
            for role in ("initial", "rewritten", "optimized"):
                assert f"{versions[role]['ias']:.3f}" in text
            chosen = opened.page.locator("tr.chosen th").first.inner_text()
            assert chosen.startswith(versions["chosen"])


def test_heat_and_maps_stand_as_numbers_too(answered: Path, window: OpenWindow) -> None:
    (scores,) = vli("score", PICTURES / "star.png", QUESTIONS[0], "--json", "--adapter", "mini-ema").records
    with window(answered / "report.html") as opened:
        page = opened.page
        open_all(opened)
        nats = page.locator("details", has_text="Nats of every token").locator("table").first
        assert nats.locator("thead th").all_inner_texts()[1:] == scores["scores"][0]["tokens"]
        assert nats.locator("tbody td").all_inner_texts() == [f"{nll:.2f}" for nll in scores["scores"][0]["token_nll"]]
        reads = page.locator("details", has_text="CMAA").locator("table").first
        row = [float(share) for share in reads.locator("tbody tr").first.locator("td").all_inner_texts()]
        assert sum(row) == pytest.approx(1, abs=0.05)
        patches = page.locator("figure details table")
        mean = patches.inner_text()
        page.locator("input[type=range]").focus()
        page.keyboard.press("ArrowRight")
        assert "query 1 of 12" in page.locator(".look [role=status]").inner_text()
        assert patches.inner_text() != mean
        shares = [float(share) for share in patches.locator("td").all_inner_texts()]
        assert len(shares) == 100
        assert 20 < sum(shares) <= 101  # percent; what lacks lies on the class token


def test_the_keyboard_reaches_every_item_and_every_control(answered: Path, window: OpenWindow) -> None:
    with window(answered / "report.html") as opened:
        page = opened.page

        def focused() -> str:
            return str(page.evaluate("document.activeElement.id || document.activeElement.textContent"))

        reached = []
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.append(focused())
        for id in ("search", "filter-uncertain", "filter-failed", "threshold", "sort", "list"):
            assert id in reached
        assert any(name.startswith("Next") for name in reached)
        page.locator("#list").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("End")
        assert page.locator("#list").get_attribute("aria-activedescendant") == "row-3"
        assert "bad.png" in page.locator("#item").inner_text()
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        assert focused() == "item"
        page.keyboard.press("Escape")
        assert focused() == "list"


def test_on_a_phone_an_item_takes_the_place_of_the_list_and_gives_it_back(answered: Path, window: OpenWindow) -> None:
    with window(answered / "report.html", width=PHONE) as opened:
        page = opened.page
        assert page.locator("#list").is_visible()
        assert not page.locator("#item").is_visible()
        page.locator(".row").nth(1).click()
        assert page.locator("#item").is_visible()
        assert not page.locator("#list").is_visible()
        page.get_by_role("button", name="All items").click()
        assert page.locator("#list").is_visible()


class Made(Collector):
    """A collector that needs no run."""

    def __init__(self, preview: list[str] | None = None) -> None:
        super().__init__(1)
        self.preview = preview

    def of(self, kind: str, id: str | int) -> Any:
        if kind == "preview":
            return self.preview
        return super().of(kind, id)


def record(number: int, **more: Any) -> Fields:
    certainty = (number * 7919 % 1000) / 1000
    chosen = "rewritten" if number % 3 == 0 else "initial"
    versions = {
        "initial": {"text": f"question {number}?", "ias": 3.0, "answer": "red", "certainty": certainty},
        "rewritten": {
            "text": f"Question {number}, please?",
            "ias": 1.0 + certainty,
            "answer": "blue",
            "certainty": 0.9,
        },
    }
    return {
        "schema": "vlinstruct.optimize/1",
        "id": f"folder/{number:05}.png",
        "status": "ok",
        "image": f"folder/{number:05}.png",
        "backbone": "mini",
        **versions,
        "chosen": chosen,
        "instruction": versions[chosen]["text"],
        "reason": "it has the lowest IAS",
        "initial_answer": "red",
        "initial_certainty": certainty,
        "answer": versions[chosen]["answer"],
        "certainty": certainty,
        **more,
    }


def written(path: Path, records: Iterable[Fields], preview: list[str] | None = None) -> Path:
    kept = list(records)
    with Made(preview) as collector:
        write_report(path, lambda: kept, collector)
    return path


def test_ten_thousand_items_open_filter_sort_and_scroll_without_freezing(tmp_path: Path, window: OpenWindow) -> None:
    noise = Image.effect_noise((200, 200), 90).convert("RGB")
    picture = preview_of(noise, max_bytes=4_000).address
    assert len(picture) > 2_000
    path = written(tmp_path / "report.html", (record(number) for number in range(10_000)), [picture, ""])
    began = time.perf_counter()
    with window(path) as opened:
        page = opened.page
        page.locator(".row").first.wait_for()
        seconds = {"open": time.perf_counter() - began}

        def timed(name: str, script: str) -> None:
            # The work of the event and of the next two frames.
            milliseconds = page.evaluate(
                f"async () => {{ const began = performance.now(); {script};"
                "await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));"
                "return performance.now() - began; }"
            )
            seconds[name] = milliseconds / 1000

        timed("filter", "document.getElementById('filter-changed').click()")
        assert page.locator("#count").inner_text() == "3,334 of 10,000 items"
        timed("search", "search.value = '9999'; search.dispatchEvent(new Event('input'))")
        assert page.locator("#count").inner_text() == "1 of 10,000 items"
        timed("all", "search.value = ''; search.dispatchEvent(new Event('input'))")
        timed("sort", "sort.value = 'certainty'; sort.dispatchEvent(new Event('change'))")
        timed("scroll", "list.scrollTop = list.scrollHeight / 2")
        assert page.locator(".row").count() < 40
        timed("end", "list.focus(); list.dispatchEvent(new KeyboardEvent('keydown', {key: 'End'}))")
        timed("next", "list.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowUp'}))")
        assert "3,333 of 3,334" in page.locator(".item-head").inner_text()
        # Ten times what they take on two busy cores; a page that makes a row of every item takes more.
        assert seconds.pop("open") < 20
        assert max(seconds.values()) < 1.5, seconds
        assert opened.problems == []


def test_filters_keep_what_they_name_and_sorting_orders_by_it(tmp_path: Path, window: OpenWindow) -> None:
    failed = {
        "schema": "vlinstruct.optimize/1",
        "id": "bad.png",
        "status": "error",
        "code": "image_damaged",
        "message": "no",
    }
    records = [record(number) for number in range(12)]
    with window(written(tmp_path / "report.html", [*records, failed])) as opened:
        page = opened.page

        def listed() -> list[str]:
            return page.locator(".row").evaluate_all("rows => rows.map(row => row.id.slice(4))")

        page.locator("#filter-uncertain").click()
        page.locator("#threshold").fill("0.3")
        assert listed() == [str(number) for number in range(12) if records[number]["certainty"] < 0.3]
        page.locator("#filter-uncertain").click()
        page.locator("#filter-failed").click()
        assert listed() == ["12"]
        page.locator("#filter-changed").click()
        assert listed() == []
        assert "No item" in page.locator("#list").inner_text()
        assert opened.findings() == []
        page.locator("#filter-failed").click()
        assert listed() == ["0", "3", "6", "9"]
        page.locator("#sort").select_option("gain")
        gains = [3.0 - records[int(number)]["rewritten"]["ias"] for number in listed()]
        assert gains == sorted(gains, reverse=True)
        page.locator("#filter-changed").click()
        page.locator("#sort").select_option("certainty")
        order = listed()[:-1]
        assert order == sorted(order, key=lambda number: records[int(number)]["certainty"])
        page.locator("#search").fill("QUESTION 7")
        assert listed() == ["7"]


def test_hostile_names_and_texts_change_nothing(tmp_path: Path, window: OpenWindow) -> None:
    collector = Collector(len(HOSTILE))
    records = []
    for number, hostile in enumerate(HOSTILE):
        version = {"text": hostile, "ias": 1.0, "answer": hostile, "certainty": 0.5, "cross_nll": 0.1}
        records.append(
            record(
                number, id=hostile, image=hostile, initial=version, rewritten=version, reason=hostile, answer=hostile
            )
            | {
                "initial_answer": hostile,
                "notices": [hostile],
                "choices": [{"text": hostile, "probability": 1, "nll": 0}],
            }
        )
        item = BatchItem(id=hostile, source=b"", image=hostile, texts=(hostile,))
        collector.sees(item, Image.new("RGB", (30, 20), "red"))
        collector._keep("details", hostile, {"versions": {"initial": {"tokens": [hostile, "</s>"], "nll": [1, 2]}}})
        reads = {"of": "asked", "queries": 1, "grid": [1, 1], "peaks": [1], "looks": ["/w=="], "tokens": [hostile]}
        collector._keep("maps", hostile, [{**reads, "reads": "/w=="}])
    path = tmp_path / "report.html"
    with collector:
        write_report(path, lambda: records, collector)
    for width in (PHONE, DESK):
        with window(path, width=width) as opened:
            page = opened.page
            if width == PHONE:
                page.locator(".row").first.click()
            for number in range(len(HOSTILE)):
                open_all(opened)
                assert page.locator("#item .quiet").first.inner_text() == f"{number + 1} of {len(HOSTILE)}"
                assert page.title() != "run"
                assert page.locator("script").count() == 4
                assert page.locator("#item img").count() == 1
                assert opened.width() == width
                shown = page.locator("body").inner_text()
                assert not {"\u202e", "\u2066", "\u200f", "\x1b", "\x00"} & set(shown)
                if number < len(HOSTILE) - 1:
                    page.get_by_role("button", name="Next").click()
            assert opened.problems == []


def test_a_single_picture_has_a_page_without_a_list(tmp_path: Path, window: OpenWindow) -> None:
    asked = vli("ask", PICTURES / "star.png", "what colour is the star?", "--report", tmp_path / "one.html")
    assert asked.text == "red\n"
    for width in (PHONE, DESK):
        with window(tmp_path / "one.html", width=width) as opened:
            assert opened.page.locator("h1").inner_text() == "what colour is the star?"
            assert not opened.page.locator("#list").is_visible()
            assert not opened.page.locator("#search").is_visible()
            assert opened.page.locator(".answer-text").inner_text() == "red"
            assert opened.findings() == []
            assert opened.problems == []
