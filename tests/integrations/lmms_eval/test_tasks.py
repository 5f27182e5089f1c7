"""The tasks that ship: their YAML files, their metrics, and what turns official files into their rows."""

from __future__ import annotations

import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from command_line import vli

from vlinstruct.errors import DataError
from vlinstruct.evaluation.benchmark import SHORT_ANSWER
from vlinstruct.integrations.lmms_eval import TASKS_FOLDER, prepare, results

from . import official_sets

RIGHT: dict[str, Any] = {"vsr": ["True."], "iconqa": [(0.2, True), (0.1, False), (0.9, False)]}
RIGHT |= {"visdial": [(0.2, True), (0.1, False), (0.9, False)], "hatefulmemes": [(0.1, False), (0.2, True)]}


class Loader(yaml.SafeLoader):
    """Reads `!function module.name` as that text."""


Loader.add_constructor("!function", lambda loader, node: f"!{loader.construct_scalar(node)}")


def utils(benchmark: str) -> ModuleType:
    return importlib.import_module(f"vlinstruct.integrations.lmms_eval.tasks.{benchmark}.utils")


def task(benchmark: str) -> dict[str, Any]:
    (path,) = (TASKS_FOLDER / benchmark).glob("*.yaml")
    content: dict[str, Any] = Loader(path.read_text(encoding="utf-8")).get_single_data()
    assert path.stem == content["task"] == f"vlinstruct_{benchmark}"
    return content


def functions(value: object) -> list[str]:
    """Returns all functions that a part of a YAML file names."""
    if isinstance(value, dict | list):
        return [name for one in (value.values() if isinstance(value, dict) else value) for name in functions(one)]
    return [value[1:]] if isinstance(value, str) and value.startswith("!") else []


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with every benchmark's official files."""
    monkeypatch.setattr(official_sets, "NUM_ITEMS", 3)
    monkeypatch.setattr(official_sets, "NUM_DIALOGUES", 1)
    for benchmark, write in official_sets.WRITERS.items():
        write(tmp_path / benchmark)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_prints_the_folder_of_all_tasks() -> None:
    folder = Path(vli("lmms-tasks").text.rstrip("\n"))
    assert sorted(path.stem for path in folder.rglob("*.yaml")) == sorted(
        f"vlinstruct_{benchmark}" for benchmark in prepare.BENCHMARKS
    )


@pytest.mark.parametrize("benchmark", prepare.BENCHMARKS)
def test_a_task_names_functions_that_exist_and_metrics_that_they_return(benchmark: str) -> None:
    content = task(benchmark)
    names = functions(content)
    assert {"utils.doc_to_visual", "utils.process_results"} <= set(names)
    for name in names:
        assert callable(getattr(utils(benchmark), name.removeprefix("utils.")))
    doc = {"answer": "true" if benchmark == "vsr" else "yes", "candidates": ["no", "yes", "maybe"]}
    if benchmark == "hatefulmemes":
        doc["candidates"] = ["yes", "no"]
    found = utils(benchmark).process_results(doc, RIGHT[benchmark])
    assert [one["metric"] for one in content["metric_list"]] == list(found)


@pytest.mark.parametrize("benchmark", prepare.BENCHMARKS)
def test_a_task_reads_what_prepare_writes(benchmark: str, official: Path) -> None:
    assert prepare.main([benchmark, benchmark]) == 0
    content = task(benchmark)
    rows = [json.loads(line) for line in Path(content["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()]
    fields = {content[name] for name in ("doc_to_text", "doc_to_target", "doc_to_choice") if name in content}
    for row in rows:
        assert fields | {"id", "image"} <= row.keys()
        (picture,) = utils(benchmark).doc_to_visual(row)
        assert picture.mode == "RGB"
        is_ranked = content["output_type"] == "multiple_choice"
        assert (row["answer"] in row["candidates"]) if is_ranked else row["candidates"] == []
    assert len(rows) == (1 if benchmark == "visdial" else 3)


def test_answers_are_generated_as_our_own_evaluation_does() -> None:
    asked = task("vsr")["generation_kwargs"]
    assert asked == {
        "max_new_tokens": SHORT_ANSWER.max_new_tokens,
        "num_beams": SHORT_ANSWER.num_beams,
        "length_penalty": SHORT_ANSWER.length_penalty,
        "do_sample": SHORT_ANSWER.do_sample,
    }


@pytest.mark.parametrize(("said", "score"), [("true", 1.0), (" True. ", 1.0), ("false", 0.0), ("yes", 0.0)])
def test_vsr_wants_the_word_it_asks_for(said: str, score: float) -> None:
    assert utils("vsr").process_results({"answer": "true"}, [said]) == {"accuracy": score}


def test_iconqa_takes_the_lowest_loss() -> None:
    doc = {"answer": "b", "candidates": ["a", "b", "c"]}
    ranked = utils("iconqa").process_results
    assert ranked(doc, [(0.3, False), (0.1, False), (0.2, False)]) == {"accuracy": 1.0}
    assert ranked(doc, [(0.1, False), (0.3, False), (0.2, False)]) == {"accuracy": 0.0}
    assert ranked(doc, ["[0.3, false]".title(), "[0.1, False]", "(0.2, True)"]) == {"accuracy": 1.0}


@pytest.mark.parametrize(
    ("rank", "expected"),
    [(1, (1.0, 1.0, 1.0, 1.0)), (4, (0.25, 0.0, 1.0, 1.0)), (8, (0.125, 0.0, 0.0, 1.0)), (50, (0.02, 0.0, 0.0, 0.0))],
)
def test_visdial_counts_how_far_up_the_answer_stands(rank: int, expected: tuple[float, ...]) -> None:
    candidates = [f"answer {number}" for number in range(100)]
    losses = [(number / 10, False) for number in range(100)]
    found = utils("visdial").process_results({"answer": f"answer {rank - 1}", "candidates": candidates}, losses)
    assert tuple(found.values()) == expected


def test_hatefulmemes_is_one_area_over_all_documents() -> None:
    scores = [
        utils("hatefulmemes").process_results(
            {"answer": answer, "candidates": ["yes", "no"]}, [(yes, False), (no, False)]
        )
        for answer, yes, no in (("yes", 0.1, 0.9), ("yes", 0.5, 0.4), ("no", 0.5, 0.5), ("no", 0.9, 0.1))
    ]
    assert utils("hatefulmemes").area_under_curve([one["roc_auc"] for one in scores]) == 0.75
    assert "score" not in scores[0]["roc_auc"]
    with pytest.raises(DataError, match="one class"):
        utils("hatefulmemes").area_under_curve([scores[0]["roc_auc"]])


def test_a_missing_picture_is_named(official: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (official / "vsr" / "images" / "000000000001.jpg").unlink()
    assert prepare.main(["vsr", "vsr"]) == DataError.exit_code
    said = capsys.readouterr().err
    assert said.startswith("error: cannot prepare (")
    assert said.endswith("000000000001.jpg): this picture is not there. Get the pictures, too\n")
    assert not (official / "lmms_data").exists()


def test_no_items_are_an_error(official: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (official / "vsr" / "test.jsonl").write_text("")
    assert prepare.main(["vsr", "vsr", "-o", "rows.jsonl"]) == DataError.exit_code
    assert "cannot prepare (vsr): it holds no items" in capsys.readouterr().err


def test_what_was_done_is_said(official: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main(["hatefulmemes", "hatefulmemes", "-o", "rows.jsonl"]) == 0
    assert capsys.readouterr().err == "done: 3 items in rows.jsonl\n"


def test_tasks_need_no_torch_and_no_lmms_eval() -> None:
    names = [f"tasks.{benchmark}.utils" for benchmark in prepare.BENCHMARKS]
    names += ["documents", "generation", "pictures", "prepare", "requests", "results", "settings"]
    imports = "; ".join(f"import vlinstruct.integrations.lmms_eval.{name}" for name in names)
    code = f"import sys; {imports}; sys.exit('torch' in sys.modules or 'lmms_eval' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", [results, *map(utils, prepare.BENCHMARKS)])
def test_examples_are_true(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0
