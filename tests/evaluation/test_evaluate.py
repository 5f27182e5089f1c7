"""The verb in Python: what the command does, in three lines, with the same records and the same words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import vli

from vlinstruct.errors import UsageError
from vlinstruct.evaluation.evaluate import Evaluation, evaluate
from vlinstruct.evaluation.selection import EvaluationSettings

NAMES = ["mini/vsr", "mini/iconqa"]
ON_CPU = EvaluationSettings(device="cpu", batch_size=2)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    (result,) = evaluate(NAMES, limit=2, output=tmp_path_factory.mktemp("python"), settings=ON_CPU)
    return result


def test_the_command_writes_and_prints_the_same(evaluation: Evaluation, tmp_path: Path) -> None:
    command = ("evaluate", *NAMES, "--device", "cpu", "--batch-size", "2", "--limit", "2", "-o", tmp_path)
    (record,) = vli(*command, "--json").records
    assert (tmp_path / "records.jsonl").read_bytes() == evaluation.records_file.read_bytes()
    assert record["findings"] == json.loads(json.dumps(evaluation.as_record()["findings"]))
    assert record["generation"] == evaluation.as_record()["generation"]
    (tmp_path / "times.jsonl").write_bytes((evaluation.folder / "times.jsonl").read_bytes())
    assert vli(*command).text == f"{evaluation}\n"


def test_the_files_are_where_it_says(evaluation: Evaluation) -> None:
    assert len(evaluation.records_file.read_text().splitlines()) == 2 * 3 * 2
    assert evaluation.page.read_text().startswith("<!doctype html>")
    assert (evaluation.folder / "chart.svg").exists()


def test_called_again_it_answers_nothing_anew_and_compares(evaluation: Evaluation) -> None:
    notices: list[str] = []
    tables: list[Evaluation] = []
    (again,) = evaluate(
        NAMES,
        limit=2,
        output=evaluation.folder,
        against=evaluation.folder,
        settings=ON_CPU,
        notify=notices.append,
        on_table=tables.append,
    )
    assert tables == [again]
    assert notices == [f"{evaluation.records_file}: 12 done before"]
    assert again.differences is not None
    assert (again.differences.compared, again.differences.decisions) == (12, [])
    assert str(again) == str(evaluation)


def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name a benchmark"):
        evaluate([], output=tmp_path)
    with pytest.raises(UsageError, match="limit is 1"):
        evaluate("mini/gqa", limit=1, output=tmp_path)
    with pytest.raises(UsageError, match="need --data"):
        evaluate("gqa", output=tmp_path)
    with pytest.raises(UsageError, match="shows; of mini none does"):
        evaluate("mini", output=tmp_path, settings=EvaluationSettings(ocr=True))
    assert not list(tmp_path.iterdir())
