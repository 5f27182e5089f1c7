"""A CSV or parquet of a run's records: the same ids and values as its lines, whatever they hold."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from vlinstruct.errors import InputError, ResourceError
from vlinstruct.records.output import RecordWriter
from vlinstruct.records.table_output import lines_of, require_table, write_table

HOSTILE = 'a "quoted", text;\nof =two\r\nlines\t<script> \x1b[2J \u202e é'
SCORED = {"text": HOSTILE, "ias": 1.5}
JUDGED = {"text": "b", "ias": None, "answer": "", "certainty": 0.25, "cross_nll": 0.1}
RECORDS: dict[str, list[dict[str, Any]]] = {
    "ask": [
        {"id": HOSTILE, "status": "ok", "image": "a.png", "question": "7", "instruction": "null", "answer": HOSTILE},
        {
            "id": "b",
            "status": "ok",
            "image": "b.png",
            "question": "?",
            "instruction": "?",
            "answer": "",
            "choices": [
                {"text": "1,5", "probability": 0.75, "nll": 0.1},
                {"text": "b", "probability": 0.25, "nll": 1.0},
            ],
            "notices": ["one", 'two, "three"'],
            "optimization": {"initial": SCORED, "chosen": "initial", "instruction": HOSTILE, "reason": "why"},
        },
        {"id": "c", "status": "error", "code": "image_empty", "message": "cannot read image (c.png): empty file"},
    ],
    "optimize": [
        {
            "id": 1,
            "status": "ok",
            "image": "a.png",
            "initial": SCORED,
            "rewritten": JUDGED,
            "optimized": JUDGED,
            "variant_1": SCORED,
            "variant_2": JUDGED,
            "chosen": "rewritten",
            "instruction": "b",
            "reason": "r",
        },
        {"id": 2, "status": "ok", "image": "b.png", "initial": JUDGED, "chosen": "initial", "instruction": "b"},
    ],
}


def write_lines(output: Path, command: str, records: list[dict[str, Any]]) -> None:
    with open(lines_of(output), "wb") as stream:
        for record in records:
            RecordWriter(stream).write({"schema": f"vlinstruct.{command}/1", **record})


def rows_of(output: Path) -> list[dict[str, Any]]:
    if output.suffix == ".parquet":
        from pyarrow import parquet

        rows: list[dict[str, Any]] = parquet.read_table(output).to_pylist()
        return rows
    heads, *rows_of_cells = csv.reader(io.StringIO(output.read_bytes().decode(), newline=""))
    return [dict(zip(heads, cells, strict=True)) for cells in rows_of_cells]


def flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in record.items():
        values |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return values


def as_cell(value: object) -> str:
    """What a CSV's reader gets of a value."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize("command", RECORDS)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_has_the_ids_and_values_of_the_lines(tmp_path: Path, command: str, suffix: str) -> None:
    output = tmp_path / f"out{suffix}"
    write_lines(output, command, RECORDS[command])
    write_table(output)
    for row, record in zip(rows_of(output), RECORDS[command], strict=True):
        expected = flat(record)
        if suffix == ".csv":
            expected = {name: as_cell(value) for name, value in expected.items()}
        assert {name: row[name] for name in expected} == expected
        assert not any(value for name, value in row.items() if name not in expected)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_each_instruction_that_was_scored_has_a_row(tmp_path: Path, suffix: str) -> None:
    scores = [
        {"instruction": text, "ias": ias, "tokens": ["a", '"'], "token_nll": [ias, None]}
        for text, ias in (("what?", 1.25), (HOSTILE, None))
    ]
    output = tmp_path / f"out{suffix}"
    write_lines(output, "score", [{"id": "a", "status": "ok", "image": "a.png", "scores": scores}])
    write_table(output)
    rows = rows_of(output)
    assert [row["id"] for row in rows] == ["a", "a"]
    as_read = [{name: as_cell(value) for name, value in s.items()} for s in scores] if suffix == ".csv" else scores
    assert [{name: row[name] for name in scores[0]} for row in rows] == as_read


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_columns_are_the_commands_and_not_the_items(tmp_path: Path, suffix: str) -> None:
    heads = []
    for name, records in {"all": RECORDS["optimize"], "bad": [{"id": 1, "status": "error", "code": "c"}]}.items():
        output = tmp_path / f"{name}{suffix}"
        write_lines(output, "optimize", records)
        write_table(output)
        heads.append([column for column in rows_of(output)[0] if not column.startswith("variant_")])
    assert heads[0] == heads[1]


def test_an_empty_answer_is_quoted_and_a_missing_one_is_not(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    write_lines(output, "ask", [{"id": "a", "status": "ok", "answer": ""}, {"id": "b", "status": "error"}])
    write_table(output)
    assert [line.split(",")[7] for line in output.read_text().splitlines()] == ['"answer"', '""', ""]


def test_a_file_of_something_else_is_refused_and_one_of_ours_is_replaced(tmp_path: Path) -> None:
    output = tmp_path / "mine.csv"
    output.write_text("milk,bread\n")
    with pytest.raises(InputError, match=r"mine\.csv\.jsonl"):
        require_table(output, overwrite=False, inputs=[])
    require_table(output, overwrite=True, inputs=[])
    write_lines(output, "ask", RECORDS["ask"])
    require_table(output, overwrite=False, inputs=[])
    with pytest.raises(InputError, match="one of the inputs"):
        require_table(output, overwrite=True, inputs=[output])


def test_parquet_without_its_library_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ResourceError, match=r"vlinstruct\[parquet\]"):
        require_table(tmp_path / "out.parquet", overwrite=False, inputs=[])
    require_table(tmp_path / "out.csv", overwrite=False, inputs=[])


def test_a_name_that_is_no_unicode_and_a_number_past_64_bits_are_texts(tmp_path: Path) -> None:
    for suffix in (".csv", ".parquet"):
        output = tmp_path / f"out{suffix}"
        write_lines(output, "ask", [{"id": 2**70, "status": "ok", "image": "a\udcff.png", "answer": "x"}])
        write_table(output)
        (row,) = rows_of(output)
        assert (row["id"], row["image"]) == (str(2**70), "a\\udcff.png")
