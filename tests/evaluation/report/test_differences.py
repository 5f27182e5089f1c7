"""What two runs differ in is told by record; what batch and processes change is nothing that counts."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import vlinstruct as vli
from vlinstruct.evaluation.answering import SCHEMA
from vlinstruct.evaluation.benchmarks.mini import TASKS, items
from vlinstruct.evaluation.parts import ALONE, Processes
from vlinstruct.evaluation.report.columns import read_records
from vlinstruct.evaluation.report.differences import NEAR, as_lines, differences
from vlinstruct.evaluation.runner import Contender, run
from vlinstruct.settings import GenerationSettings

ROLES = ("initial", "rewritten", "optimized")


def said(text: str, ias: float, answer: Any) -> dict[str, Any]:
    return {"text": text, "ias": ias, "answer": answer}


def record(name: str = "a/poor/x-1", **changes: Any) -> dict[str, Any]:
    roles = {"initial": said("i", 2.0, "no"), "rewritten": said("r", 1.0, "yes"), "optimized": said("o", 1.5, "yes")}
    return {"schema": SCHEMA, "id": name, "references": ["yes"], **roles, "chosen": "rewritten", **changes}


def ranked(*nll: float) -> dict[str, Any]:
    return record(candidates=["yes", "no"], **{role: said(role, 2.0, list(nll)) for role in ROLES})


def test_the_same_records_differ_in_nothing() -> None:
    found = differences([record()], [record()])
    assert (found.compared, found.only_one, found.texts, found.decisions, found.near_ties) == (1, [], [], [], [])
    assert found.largest == {"ias": 0.0, "candidates": 0.0}


@pytest.mark.parametrize("changes", [{"initial": said("i", 2.0, "maybe")}, {"rewritten": said("R", 1.0, "yes")}])
def test_another_instruction_or_answer_is_another_text(changes: Mapping[str, Any]) -> None:
    assert differences([record()], [record(**changes)]).texts == ["a/poor/x-1"]


def test_what_differs_of_the_texts_is_told() -> None:
    greedy = record("b", greedy=said("i", 2.0, "no"))
    found = differences([record("a"), greedy], [record("a", initial=said("i", 2.0, "maybe")), record("b")])
    assert found.parts == {"initial answer": 1, "greedy answer": 1}
    assert "  other texts in: initial answer 1, greedy answer 1: 2" in as_lines(found, "there")
    assert differences([ranked(1.0, 2.0)], [record()]).parts["candidates"] == 1
    assert "  other texts: 0" in as_lines(differences([greedy], [greedy]), "there")


def test_another_choice_is_another_decision() -> None:
    found = differences([record()], [record(chosen="optimized")])
    assert (found.decisions, found.texts) == (["a/poor/x-1"], [])


def test_another_first_candidate_is_another_decision_and_here_a_near_tie() -> None:
    found = differences([ranked(1.0, 1.00002)], [ranked(1.00003, 1.0)])
    assert found.decisions == found.near_ties == ["a/poor/x-1"]
    assert found.largest["candidates"] == pytest.approx(3e-5)


def test_two_wordings_of_nearly_one_ias_are_a_near_tie_and_one_wording_twice_is_none() -> None:
    near = record(optimized=said("o", 1.00001, "yes"))
    same = record(optimized=said("r", 1.0, "yes"))
    assert differences([near], [near]).near_ties == ["a/poor/x-1"]
    assert differences([same], [same]).near_ties == []


def test_an_ias_that_moved_is_told() -> None:
    assert differences([record()], [record(initial=said("i", 2.25, "no"))]).largest["ias"] == 0.25


def test_records_that_one_run_lacks_are_named() -> None:
    found = differences([record("a"), record("b")], [record("b"), record("c")])
    assert (found.compared, found.only_one) == (1, ["a", "c"])


def test_few_records_are_named_and_many_are_counted() -> None:
    for num_records, num_named in ((20, 20), (21, 0)):
        ours = [record(f"x-{number:02}") for number in range(num_records)]
        theirs = [{**one, "chosen": "optimized"} for one in ours]
        lines = as_lines(differences(ours, theirs), "there")
        assert [line.strip() for line in lines if "x-" in line] == [f"x-{number:02}" for number in range(num_named)]
    assert "  other decisions: 21 (--json names them)" in lines


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[int, int], Path]:
    """Folders of records by batch size and number of processes: mini, greedy, float32, some items of every task."""
    pipeline = vli.load("mini", device="cpu", dtype="float32")
    asked = {task.name: items(task, 2, seed=1) for task in TASKS}
    generation = dict.fromkeys(asked, GenerationSettings(max_new_tokens=30))
    model = Contender(name="vanilla", fingerprint="mini", load=lambda: pipeline)
    folders = {}
    for batch_size, count in ((1, 1), (4, 1), (16, 1), (4, 2), (4, 3)):
        folder = tmp_path_factory.mktemp(f"batch-{batch_size}-{count}-processes")
        work = partial(run, [model], asked, folder, batch_size=batch_size, generation=generation)
        _in_threads(work, count)
        folders[batch_size, count] = folder
    return folders


def _in_threads(work: Any, count: int) -> None:
    """Runs threads in the place of processes."""
    barrier = threading.Barrier(count)
    shares = [ALONE] if count == 1 else [Processes(rank=rank, count=count, wait=barrier.wait) for rank in range(count)]
    threads = [threading.Thread(target=partial(work, processes=one)) for one in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("how", [(1, 1), (16, 1), (4, 2), (4, 3)])
@pytest.mark.slow
def test_batch_size_and_number_of_processes_change_no_answer(
    how: tuple[int, int], runs: Mapping[tuple[int, int], Path]
) -> None:
    found = differences(read_records(runs[4, 1]), read_records(runs[how]))
    assert found.compared == 2 * 10 * 3
    assert found.only_one == []
    assert set(found.texts + found.decisions) <= set(found.near_ties)
    assert max(found.largest.values()) < NEAR  # a batch moves a score by less than what counts as a tie
    assert how[0] != 4 or found.largest == {"ias": 0.0, "candidates": 0.0}
