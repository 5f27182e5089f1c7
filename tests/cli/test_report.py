"""`--report`: a page beside the records, which stay what they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from command_line import vli
from report.report_file import blocks

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
STAR, SIGN = PICTURES / "star.png", PICTURES / "sign.png"
OPTIMIZED = ("-O", "--when", "always")


@pytest.fixture
def data(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of items: a question for each name."""

    def write(**questions: str) -> Path:
        path = tmp_path / "data.jsonl"
        items = [
            {"id": id, "image": str(STAR if id != "bad" else tmp_path / "bad.png"), "question": question}
            for id, question in questions.items()
        ]
        path.write_text("".join(json.dumps(item) + "\n" for item in items))
        return path

    (tmp_path / "bad.png").write_bytes(b"no picture")
    return write


def shown_ids(report: Path) -> list[Any]:
    return [record["id"] for record, _ in blocks(report)["items"]]


def test_a_report_changes_neither_stdout_nor_the_output(tmp_path: Path, data: Callable[..., Path]) -> None:
    options = ["--data", data(a="whats the colr", bad="?"), "--allow-outside", *OPTIMIZED]
    plain, reported = vli("ask", *options), vli("ask", *options, "--report", tmp_path / "report.html")
    assert plain.exit_code == reported.exit_code == 3
    assert plain.stdout == reported.stdout
    records = [
        {name: value for name, value in record.items() if name not in ("schema", "backbone")}
        for record in plain.records
    ]
    assert [record for record, _ in blocks(tmp_path / "report.html")["items"]] == records
    assert f"done: report written to {tmp_path / 'report.html'}" in reported.lines


def test_one_picture_has_its_tokens_its_maps_and_its_picture(tmp_path: Path) -> None:
    report = tmp_path / "one.html"
    assert vli("optimize", "whats the colr", STAR, "--answer", "--when", "always", "--report", report).exit_code == 0
    held = blocks(report)
    ((record, details),) = held["items"]
    initial = details["versions"]["initial"]
    assert sum(initial["nll"]) / len(initial["nll"]) == pytest.approx(record["initial"]["ias"], abs=1e-4)
    assert details["certainty"] == pytest.approx(record["certainty"], abs=1e-4)
    assert held["maps"][0][-1]["queries"] == tiny_models.NUM_QUERY_TOKENS
    assert "reads" not in held["maps"][0][-1]  # it has no alignment layers
    assert held["previews"][0][0].startswith("data:image/png;base64,")


def test_a_resumed_output_is_reported_whole(tmp_path: Path, data: Callable[..., Path]) -> None:
    output, report = tmp_path / "out.jsonl", tmp_path / "report.html"
    first = vli("ask", "--data", data(a="what colour?"), "--allow-outside", "-o", output)
    assert first.exit_code == 0
    again = vli(
        "ask", "--data", data(a="what colour?", b="what shape?"), "--allow-outside", "-o", output, "--report", report
    )
    assert again.exit_code == 0
    assert shown_ids(report) == ["a", "b"]
    held = blocks(report)
    assert [preview is None for preview in held["previews"]] == [True, False]
    assert [details is None for _, details in held["items"]] == [True, False]


@pytest.mark.parametrize(
    ("make", "code", "why"),
    [
        (lambda path: path.write_text("my notes"), 4, "the file exists and is no report"),
        (lambda path: path.mkdir(), 4, "it is a directory"),
    ],
)
def test_what_is_no_report_is_refused_before_any_work_and_stays(
    tmp_path: Path, make: Callable[[Path], object], code: int, why: str
) -> None:
    report = tmp_path / "report.html"
    make(report)
    asked = vli("ask", STAR, "what?", "--report", report, "--backbone", "/no/such/model")
    assert why in asked.refusal(code)
    assert report.is_dir() or report.read_text() == "my notes"


def test_a_report_replaces_a_report_through_a_link_and_an_empty_file(tmp_path: Path) -> None:
    report, link = tmp_path / "report.html", tmp_path / "link.html"
    report.touch()
    link.symlink_to(report)
    for question in ("what shape?", "what colour?"):
        assert vli("ask", STAR, question, "--report", link).exit_code == 0
    assert link.is_symlink()
    assert "what colour?" in report.read_text()


def test_a_report_is_not_the_output_and_not_of_shared_words(tmp_path: Path) -> None:
    path = tmp_path / "both"
    assert "the output" in vli("ask", STAR, "what?", "-o", path, "--report", path).refusal(4)
    assert not path.exists()
    assert "--report" in vli("optimize", "what?", STAR, SIGN, "--shared", "--report", path).refusal(2)
    assert "no such file" in vli("ask", tmp_path / "none.png", "what?", "--report", path).refusal(4)
    assert not path.exists()  # where nothing was asked there is nothing to report
