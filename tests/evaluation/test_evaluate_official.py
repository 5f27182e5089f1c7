"""`vlinstruct evaluate` on official benchmarks: listed, checked, and run end to end on a few records of each."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Result, vli

from vlinstruct.backends.registry import BACKBONES
from vlinstruct.evaluation.benchmarks import BENCHMARKS
from vlinstruct.evaluation.reading.files import read_items
from vlinstruct.metrics.vqa_accuracy import vqa_accuracy

from .official_files import draw, dump, write

QUICK = ("--device", "cpu", "--batch-size", "4", "--max-new-tokens", "4")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data"))


def run(*arguments: object) -> Result:
    return vli("evaluate", *arguments, *QUICK)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def nearly(value: Any) -> Any:
    """The value, its numbers with a batch's tolerance."""
    if isinstance(value, dict):
        return {name: nearly(field) for name, field in value.items()}
    if isinstance(value, list):
        return [nearly(entry) for entry in value]
    return pytest.approx(value, abs=2e-4) if isinstance(value, float) else value


def check_records(folder: Path, data: Path, num_rows: int) -> None:
    """Every item has a record per row, with its own references and candidates."""
    found = records(folder)
    for name, benchmark in BENCHMARKS.items():
        for item in read_items(benchmark, data / name):
            mine = [one for one in found if one["id"].endswith(f"/canonical/{item.id}")]
            assert len(mine) == num_rows
            for one in mine:
                assert tuple(one.get("candidates", ())) == item.candidates
                assert set(one["references"]) == set(item.references)
                assert len(one["references"]) == (len(item.references) if len(set(item.references)) > 1 else 1)
                assert one["initial"]["text"] == item.instructions["canonical"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_every_benchmark_runs_on_a_tiny_model(
    kind: str, data: Path, tmp_path: Path, tiny_folders: dict[str, Path]
) -> None:
    result = run(*BENCHMARKS, "--data", data, "--backbone", tiny_folders[kind], "-o", tmp_path, "--json")
    (table,) = result.records
    assert result.exit_code == 0, result.stderr
    assert set(table["cells"][0]["tasks"]) == set(BENCHMARKS)
    assert {cell["words"] for cell in table["cells"]} == {"canonical"}
    assert table["items"]["hatefulmemes"] == 3
    assert table["generation"]["gqa"]["num_beams"] == 5
    assert table["generation"]["gqa"]["max_new_tokens"] == 4
    assert table["published"] == {}
    assert "prompts" not in table, "they are the paper's"
    assert (tmp_path / "report.html").exists()
    check_records(tmp_path, data, 1)
    assert "the figures cannot be compared" in result.stderr
    assert all(line.startswith(("notice: ", "done: ")) for line in result.lines)


@pytest.mark.slow
def test_every_benchmark_runs_on_mini_with_a_row_for_each_adapter(data: Path, tmp_path: Path) -> None:
    adapters = ("--ablation", "--adapter", "mini-ema")
    result = run(*BENCHMARKS, "--data", data, "--backbone", "mini", *adapters, "-o", tmp_path)
    assert "mini-ema" in result.text
    assert {one["id"].split("/")[0] for one in records(tmp_path)} == {"vanilla", "mini-ema"}
    check_records(tmp_path, data, 2)


def test_ten_different_answers_reach_the_metric_as_they_are(data: Path, tmp_path: Path) -> None:
    answers = ["is", "IS", "a is", "is", "b", "c", "d", "e", "f", "g"]
    ocr, questions = "TextVQA_Rosetta_OCR_v0.2_val.json", "TextVQA_0.5.1_val.json"
    write(tmp_path, "textvqa")
    record = {"image_id": "00ab", "question": "What?", "answers": answers}
    dump(tmp_path / "textvqa" / questions, {"data": [{**record, "question_id": number} for number in (1, 2)]})
    dump(tmp_path / "textvqa" / ocr, {"data": [{"image_id": "00ab", "ocr_tokens": []}]})
    result = run("textvqa", "--data", tmp_path, "--backbone", "mini", "-o", tmp_path / "out", "--json")
    (table,), (first, *_) = result.records, records(tmp_path / "out")
    assert first["references"] == answers
    said = [one["initial"]["answer"] for one in records(tmp_path / "out")]
    expected = sum(vqa_accuracy(one, answers) for one in said) / len(said)
    assert table["cells"][0]["tasks"]["textvqa"]["value"] == pytest.approx(expected)


def test_generation_is_what_the_command_line_says(data: Path, tmp_path: Path) -> None:
    names = ("textvqa", "--data", data, "--backbone", "mini", "--json", "-q", "-o", tmp_path)
    (table,) = run(*names, "--num-beams", "2", "--repetition-penalty", "1.5").records
    wanted = {"num_beams": 2, "max_new_tokens": 4, "repetition_penalty": 1.5}  # 4: see `run`
    assert {name: table["generation"]["textvqa"][name] for name in wanted} == wanted


def test_greedy_answers_are_reported_beside_those_of_the_beams(data: Path, tmp_path: Path) -> None:
    names = ("textvqa", "--data", data, "--backbone", "mini", "--json", "-q")
    (searched,), (greedy,) = (
        run(*names, "-o", tmp_path / beams, *more).records for beams, more in (("5", ()), ("1", ("--num-beams", "1")))
    )
    columns = {cell["column"]: cell["tasks"] for cell in searched["cells"]}
    assert columns["plain, greedy"] == greedy["cells"][0]["tasks"]
    assert "plain, greedy" not in {cell["column"] for cell in greedy["cells"]}
    assert [one["greedy"]["answer"] for one in records(tmp_path / "5")] == [
        one["initial"]["answer"] for one in records(tmp_path / "1")
    ]


def test_minis_tasks_and_official_ones_have_a_table_each(data: Path, tmp_path: Path) -> None:
    names = ("vsr", "mini/vsr", "--data", data, "--backbone", "mini", "--limit", "2")
    tables = run(*names, "-o", tmp_path, "--json").records
    assert [table["id"].rsplit("/", 1)[1] for table in tables] == ["test", "official"]
    assert [len(records(tmp_path / kind)) for kind in ("mini", "official")] == [6, 2]


def test_published_figures_stand_beside_ours_where_the_paper_has_the_backbone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlinstruct.backends.registry.known_backbone", lambda name: BACKBONES["vicuna-7b"])
    names = ("vsr", "hatefulmemes", "--data", data, "--backbone", "mini", "-o", tmp_path, "-q")
    (table,) = run(*names, "--json").records
    figures = {"vanilla": 59.6, "ema": 60.8, "rewriting": 62.2, "aio": 62.7}
    assert table["published"] == {"hatefulmemes": figures}
    *_, head, row = run(*names).text.splitlines()
    assert head.split() == ["vanilla", "EMA", "rewriting", "AIO", "here:", "vanilla"]
    auc = next(cell for cell in table["cells"] if cell["column"] == "plain")["tasks"]["hatefulmemes"]["value"]
    assert row.split() == ["hatefulmemes", "59.6", "60.8", "62.2", "62.7", f"{100 * auc:.1f}"]


def test_a_missing_picture_costs_its_item_until_it_is_there(tmp_path: Path) -> None:
    write(tmp_path, "vsr")
    picture = tmp_path / "vsr" / "images" / "000000000002.jpg"
    picture.unlink()
    names = ("vsr", "--data", tmp_path, "--backbone", "mini", "-o", tmp_path / "out")
    left_out = run(*names, "--json")
    assert left_out.exit_code == 3
    assert "000000000002.jpg" in left_out.stderr
    table = left_out.records[0]
    assert (table["items"], table["skipped"]) == ({"vsr": 1}, {"vsr": 1})
    assert {cell["tasks"]["vsr"]["n"] for cell in table["cells"]} == {1}
    assert sorted(record["status"] for record in records(tmp_path / "out")) == ["error", "ok"]
    assert run(*names, "--skip-images", "1").exit_code == 0
    assert "--skip-images allows 0" in run(*names, "--skip-images", "0").refusal(4)
    draw(picture)
    whole = run(*names, "--json")
    assert whole.exit_code == 0
    assert whole.records[0]["items"] == {"vsr": 2}
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == whole.records[0]


def test_the_benchmarks_are_listed_with_what_a_user_needs_to_get_them() -> None:
    text = vli("evaluate", "--list").text
    for name, benchmark in BENCHMARKS.items():
        for said in (name, benchmark.part, f"{benchmark.num_items:,} items", benchmark.task.metric):
            assert said in text
        for said in (benchmark.source, benchmark.licence, *benchmark.forms[0]):
            assert said in text
    listed = vli("evaluate", "--list", "--json").records
    assert [one["id"] for one in listed] == list(BENCHMARKS)
    assert {one["mode"] for one in listed} == {"generate", "rank"}
    assert [one["generation"] is None for one in listed] == [one["mode"] == "rank" for one in listed]
    assert vli("evaluate", "gqa", "--list").text.splitlines()[0].startswith("gqa: ")


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys, vlinstruct.cli.main as m; m.run_command(['evaluate', '--list']); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_what_is_wrong_with_the_data_is_listed(tmp_path: Path) -> None:
    write(tmp_path, "vsr")
    result = vli("evaluate", "vsr", "gqa", "--data", tmp_path, "--check-data")
    assert result.exit_code == 4
    lines = result.stdout.decode().splitlines()
    assert [line.split(":")[0] for line in lines] == ["vsr", "gqa", "gqa"]
    assert "1,222 are expected" in lines[0]
    assert "testdev_balanced_questions.json): no such file" in lines[1]
    assert result.lines == ["error: 2 of 2 benchmarks have problems in their data. See stdout."]
    listed = vli("evaluate", "gqa", "--data", tmp_path, "--check-data", "--json").records
    assert [(one["id"], one["status"], len(one["problems"])) for one in listed] == [("gqa", "error", 2)]


def test_nothing_wrong_is_said_with_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BENCHMARKS, "vsr", replace(BENCHMARKS["vsr"], num_items=2))
    text = vli("evaluate", "vsr", "--data", write(tmp_path, "vsr"), "--check-data").text
    assert text == "vsr: nothing is wrong: 2 items, 2 pictures, some headers read (--decode reads pictures whole)\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name a benchmark"),
        (("gqa",), "--data DIR"),
        (("gqa", "--check-data"), "need --data DIR"),
        (("mini", "--check-data", "--data", "."), "mini's items are drawn"),
        (("gqaa", "--data", "."), "unknown benchmark 'gqaa'"),
        (("gqaa", "--list"), "unknown benchmark 'gqaa'"),
        (("gqa", "--data", ".", "--adapter", "a", "--adapter", "b"), "--adapter is given twice"),
        (("gqa", "--data", ".", "--ablation", "--backbone", "vicuna-7b"), "name at least one with --adapter"),
        (("gqa", "--data", ".", "--ablation", "--adapter", "a", "--adapter", "a"), "would have one name"),
    ],
)
def test_contradictions_are_usage(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    assert words in vli("evaluate", *arguments, "-o", tmp_path).refusal(2)


def test_beams_out_of_range_are_usage(data: Path, tmp_path: Path) -> None:
    assert "num_beams" in vli("evaluate", "gqa", "--data", data, "--num-beams", "0", "-o", tmp_path).refusal(2)


def test_missing_files_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    line = vli("evaluate", "gqa", "--data", tmp_path, "--backbone", "mini", "-o", tmp_path / "out").refusal(4)
    assert "gqa/testdev_balanced_questions.json" in line
    assert not (tmp_path / "out").exists()


def test_a_jpeg_that_was_cut_off_is_answered_where_that_is_allowed(
    tmp_path: Path, tiny_folders: dict[str, Path]
) -> None:
    picture = write(tmp_path, "vsr") / "vsr" / "images" / "000000000002.jpg"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:-2])
    arguments = ("vsr", "--data", tmp_path, "--backbone", tiny_folders["t5"])
    refused = run(*arguments, "-o", tmp_path / "cut")
    assert refused.exit_code == 3
    assert "--allow-truncated" in refused.stderr
    allowed = run(*arguments, "-o", tmp_path / "cut", "--allow-truncated")
    assert allowed.exit_code == 0
    assert "it was cut off, only its end marker is missing" in allowed.stderr
    picture.write_bytes(whole)
    run(*arguments, "-o", tmp_path / "whole")
    # The item was answered alone there and in a batch here, whose sums round otherwise in their last bits.
    assert records(tmp_path / "cut") == [nearly(record) for record in records(tmp_path / "whole")]


def test_pictures_are_read_at_another_size_and_the_results_say_it(
    data: Path, tmp_path: Path, tiny_folders: dict[str, Path]
) -> None:
    command = ("vsr", "--data", data, "--backbone", tiny_folders["t5"], "-o", tmp_path / "out")
    assert "image size" not in run(*command).text
    own = records(tmp_path / "out")
    larger = (*command, "--image-size", "56")
    assert "--overwrite" in run(*larger).refusal(4)
    assert "image size: 56" in run(*larger, "--overwrite").text
    assert json.loads((tmp_path / "out" / "results.json").read_text())["image_size"] == 56
    assert "side of a picture as the model reads it, in pixels: 56" in (tmp_path / "out" / "results.md").read_text()
    assert {record["image_size"] for record in records(tmp_path / "out")} == {56}
    assert [record["initial"]["ias"] for record in records(tmp_path / "out")] != [one["initial"]["ias"] for one in own]
    assert "--image-size (5)" in run(*command, "--image-size", "5", "--overwrite").refusal(4)


def test_overwrite_replaces_the_records_of_another_run(tmp_path: Path) -> None:
    write(tmp_path, "vsr")
    arguments = ("vsr", "--data", tmp_path, "--backbone", "mini", "-o", tmp_path / "out")
    assert run(*arguments).exit_code == 0
    other = (*arguments, "--dtype", "bfloat16")
    assert "--overwrite" in run(*other).refusal(4)
    assert run(*other, "--overwrite").exit_code == 0
