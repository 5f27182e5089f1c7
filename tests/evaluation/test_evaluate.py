"""The verb in Python: what the command does, in three lines, with the same records and the same words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import vli

from vlinstruct.errors import ResourceError, UsageError
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
    assert again.comparison is not None
    assert (again.comparison.differences.compared, again.comparison.differences.decisions) == (12, [])
    assert {pair.p_value for pair in again.comparison.pairs} == {1}
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


REFUSED = {
    "device": ("--device", "cuda:99"),
    "backbone": ("--backbone", "nobody/knows/this"),
    "adapter": ("--ablation", "--adapter", "mini-llama-ema"),
    "weights": ("--backbone", "DAMAGED"),
}


@pytest.mark.parametrize("option", REFUSED)
@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_who_is_refused_has_written_and_removed_nothing(
    option: str, more: tuple[str, ...], evaluation: Evaluation, tmp_path: Path, tiny_folders: dict[str, Path]
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_folders["t5"], damaged)
    (damaged / "tokenizer.json").write_text("{")
    options = [str(damaged) if word == "DAMAGED" else word for word in REFUSED[option]]
    old = tmp_path / "old"
    shutil.copytree(evaluation.folder, old)
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    for folder in (old, tmp_path / "new" / "deep"):
        assert vli("evaluate", *NAMES, "--limit", "2", *options, "-o", folder, *more).exit_code in (4, 5)
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_is_no_folder_of_records(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "it is a file" in vli("evaluate", *NAMES, "--backbone", "nobody", "-o", tmp_path / "file" / below).refusal(4)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["records.jsonl", "times.jsonl"])
def test_an_overwritten_run_stays_until_the_first_chunk_is_answered(
    name: str, evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(evaluation.folder, tmp_path, dirs_exist_ok=True)
    part = tmp_path / "records-1.part.jsonl"
    part.write_bytes(evaluation.records_file.read_bytes())
    command = ("evaluate", "mini/vsr", "--limit", "2", "--dtype", "bfloat16", "-o", tmp_path, "--overwrite")

    def out_of_memory(*arguments: object, **settings: object) -> None:
        raise ResourceError("no memory is left")

    with monkeypatch.context() as patch:
        patch.setattr("vlinstruct.evaluation.runner.answer", out_of_memory)
        assert vli(*command).exit_code == 6
    assert (tmp_path / name).read_bytes() == (evaluation.folder / name).read_bytes()
    assert vli(*command).exit_code == 0
    assert {json.loads(line)["task"] for line in (tmp_path / "records.jsonl").read_text().splitlines()} == {"vsr"}
    assert not part.exists()
    assert len((tmp_path / "times.jsonl").read_text().splitlines()) == 3
