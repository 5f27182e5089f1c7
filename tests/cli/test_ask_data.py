"""`vlinstruct ask --data`: the forms of a file of items, and what an item may say of itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from command_line import vli
from pyarrow import parquet

Pictures = Callable[..., list[Path]]
QUESTIONS = ("how many?", "which one?")


@pytest.fixture
def rows(pictures: Pictures) -> list[dict[str, str]]:
    """Two items beside their pictures."""
    return [
        {"id": f"q{place}", "image": path.name, "question": question}
        for place, (path, question) in enumerate(zip(pictures(2), QUESTIONS, strict=True))
    ]


def written(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def as_lines(folder: Path, rows: list[dict[str, Any]]) -> Path:
    return written(folder, "items.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def as_list(folder: Path, rows: list[dict[str, Any]]) -> Path:
    return written(folder, "items.json", rows)


def as_csv(folder: Path, rows: list[dict[str, Any]]) -> Path:
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    return written(folder, "items.csv", "\n".join(lines))


def as_parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    parquet.write_table(pa.Table.from_pylist(rows), folder / "items.parquet")
    return folder / "items.parquet"


def as_parquet_with_pictures(folder: Path, rows: list[dict[str, Any]]) -> Path:
    return as_parquet(
        folder, [{**row, "image": {"bytes": (folder / row["image"]).read_bytes(), "path": "x"}} for row in rows]
    )


@pytest.mark.parametrize("form", [as_list, as_csv, as_parquet, as_parquet_with_pictures])
def test_every_form_gives_the_records_of_the_lines(
    form: Callable[..., Path], rows: list[dict[str, str]], tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    lines = vli("ask", "--data", as_lines(folder, rows)).records
    others = vli("ask", "--data", form(folder, rows)).records
    assert [record["id"] for record in lines] == ["q0", "q1"]
    if form is as_parquet_with_pictures:
        assert [record["image"] for record in others] == [f"{folder}/items.parquet row {row}" for row in (1, 2)]
        others = [{**record, "image": line["image"]} for record, line in zip(others, lines, strict=True)]
    assert others == lines


def test_an_items_own_choices_are_ranked_and_decide_what_is_done_again(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    folder, output = tmp_path / "pictures", tmp_path / "out.jsonl"
    path = as_lines(folder, [{**rows[0], "choices": ["one", "two", 3]}, {**rows[1], "choices": None}])
    asked = ("ask", "--data", path, "-o", output, "--batch-size", "2")
    assert vli(*asked).exit_code == 0
    own, without = [json.loads(line) for line in output.read_text().splitlines()]
    assert [choice["text"] for choice in own["choices"]] == ["one", "two", "3"]
    assert "choices" not in without
    common = vli("ask", "--data", path, "--choices", "yes,no").records
    assert [[choice["text"] for choice in record["choices"]] for record in common] == [
        ["one", "two", "3"],
        ["yes", "no"],
    ]
    assert "2 were already there" in vli(*asked).lines[-1]
    as_lines(folder, [{**rows[0], "choices": ["one", "two"]}, rows[1]])
    assert "made with other arguments" in vli(*asked).refusal(4)


@pytest.mark.parametrize("choices", ["yes,no", [], ["yes"], ["yes", "yes"], ["yes", 3.5], ["yes", " "]])
def test_choices_that_cannot_be_ranked_fail_their_item_alone(
    choices: Any, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = as_lines(tmp_path / "pictures", [{**rows[0], "choices": choices}, rows[1]])
    result = vli("ask", "--data", path)
    assert result.exit_code == 3
    assert [record["status"] for record in result.records] == ["error", "ok"]
    assert "line 1)" in result.records[0]["message"]


def test_a_field_that_looks_misspelt_is_said_once(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    path = as_lines(
        tmp_path / "pictures", [{**row, "choises": ["a", "b"], "question_id": 3, "note": "x"} for row in rows]
    )
    result = vli("ask", "--data", path)
    assert result.lines == ["notice: field 'choises' is not used (2 of 2 items); did you mean 'choices'?"]


def test_columns_say_which_field_is_which(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    path = as_csv(folder, [{"key": row["id"], "file": row["image"], "q": row["question"]} for row in rows])
    asked = ("ask", "--data", path, "--columns")
    assert vli(*asked, "id=key,image=file,question=q").records == vli("ask", "--data", as_lines(folder, rows)).records
    assert "no column 'questions'; there are key, file, q" in vli(*asked, "image=file,question=questions").refusal(4)
    assert "no column 'file_name'; there are key, file, q" in vli("ask", "--data", path).refusal(4)
    assert "--data" in vli("ask", folder, "what?", "--columns", "image=file").refusal(2)
    assert "did you mean image?" in vli(*asked, "imge=file").refusal(2)


def test_optimize_and_score_take_the_items_of_a_file(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    paths = [folder / row["image"] for row in rows]
    of_file = vli("optimize", "--data", as_lines(folder, rows)).records
    for record, row, path in zip(of_file, rows, paths, strict=True):
        (alone,) = vli("optimize", row["question"], path, "--json").records
        assert record["id"] == row["id"]
        assert (record["initial"], record["chosen"]) == (alone["initial"], alone["chosen"])
    instructions = ["what?", "x"]
    scored = vli(
        "score", "--data", as_lines(folder, [{"image": row["image"], "question": instructions} for row in rows])
    )
    for record, path in zip(scored.records, paths, strict=True):
        assert record["scores"] == vli("score", path, *instructions, "--json").records[0]["scores"]
    refused = vli("ask", "--data", as_lines(folder, [{**rows[0], "question": instructions}, rows[1]]))
    assert [record["status"] for record in refused.records] == ["error", "ok"], "a question is one text"


def test_a_pictures_url_is_its_name_in_the_record(
    rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (tmp_path / "pictures" / rows[0]["image"]).read_bytes()
    monkeypatch.setattr("vlinstruct.media.inputs.fetch", lambda url: content)
    path = as_lines(tmp_path, [{"image": "http://me:secret@example.org/a.png?size=2", "question": "what?"}])
    (record,) = vli("ask", "--data", path, "--allow-urls").records
    assert record["image"] == "http://example.org/a.png?size=2"
