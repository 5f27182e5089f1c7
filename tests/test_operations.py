"""What a command does with a row and what of it goes into a record."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_models import not_finite, seen_of

import vlinstruct as vli
from vlinstruct.backend import Seen
from vlinstruct.errors import CheckpointError, ScoreError, VlinstructError
from vlinstruct.operations import Ask, Operation, Optimize, Score
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.values import Failed

GENERATION = GenerationSettings(max_new_tokens=8)
SHORT = OptimizationSettings(max_new_tokens=12, when="always")
IAS = replace(SHORT, select="ias")
OPERATIONS = {
    "ask": Ask(generation=GENERATION),
    "choices": Ask(choices=("yes", "no, not at all")),
    "ask -O": Ask(optimize=True, optimization=SHORT, generation=GENERATION),
    "ask -O ias": Ask(optimize=True, optimization=IAS, generation=GENERATION),
    "ask -O unsure": Ask(optimize=True, optimization=replace(SHORT, when="unsure", sure_above=0.0)),
    "optimize": Optimize(optimization=SHORT),
    "optimize ias": Optimize(optimization=IAS),
    "optimize --answer": Optimize(optimization=SHORT, answer=True, generation=GENERATION),
    "score": Score(),
}
QUESTIONS = [("what is it?",), ("name 2 things",), ("x",)]
any_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())


@pytest.fixture(params=["t5", "llama"])
def model(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> vli.Model:
    return vli.load(str(tiny_folders[request.param]), device="cpu")


@pytest.fixture
def seen(model: vli.Model) -> Sequence[Seen]:
    return seen_of(model, *(Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "green")))


def nearly(value: Any) -> Any:
    """The value, its numbers with the tolerance that cli/README.md grants a batch."""
    if isinstance(value, dict):
        return {name: nearly(field) for name, field in value.items()}
    if isinstance(value, list):
        return [nearly(entry) for entry in value]
    return pytest.approx(value, abs=3e-5) if isinstance(value, float) else value


@any_operation
def test_rows_together_equal_rows_alone(operation: Operation, model: vli.Model, seen: Sequence[Seen]) -> None:
    together = operation.run(model, seen, QUESTIONS)
    alone = [operation.run(model, [seen[row]], [text])[0] for row, text in enumerate(QUESTIONS)]
    assert together == [nearly(record) for record in alone]


@any_operation
def test_equal_operations_on_equal_rows_give_equal_records(
    operation: Operation, model: vli.Model, seen: Sequence[Seen]
) -> None:
    copy = replace(operation)  # type: ignore[type-var]
    assert operation.run(model, seen, QUESTIONS) == copy.run(model, seen, QUESTIONS)


@any_operation
def test_a_record_is_json(operation: Operation, model: vli.Model, seen: Sequence[Seen]) -> None:
    records = operation.run(model, seen, QUESTIONS)
    assert json.loads(json.dumps(records, allow_nan=False)) == records


@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *[(name, ScoreError) for name in ("choices", "ask -O ias", "optimize ias", "score")],
        # What is judged is answered first, and an answer of numbers that are not finite says the same as ever.
        *[(name, CheckpointError) for name in ("ask", "ask -O", "ask -O unsure", "optimize", "optimize --answer")],
    ],
)
def test_a_row_without_a_finite_score_fails_alone(
    name: str, kind: type[VlinstructError], row: int, model: vli.Model, seen: Sequence[Seen]
) -> None:
    operation = OPERATIONS[name]
    results = operation.run(
        model, [not_finite(picture) if place == row else picture for place, picture in enumerate(seen)], QUESTIONS
    )
    good = operation.run(model, seen, QUESTIONS)
    failed = results.pop(row)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, kind)
    del good[row]
    assert results == [nearly(record) for record in good]


@pytest.mark.parametrize("name", ["ask", "choices", "ask -O", "optimize", "optimize --answer"])
def test_a_row_that_is_too_long_fails_alone(name: str, tiny_folders: dict[str, Path]) -> None:
    model = vli.load(str(tiny_folders["llama"]), device="cpu")
    seen = [model.see(Image.new("RGB", (40, 30)))] * 3
    first, failed, last = OPERATIONS[name].run(model, seen, [("what is it?",), ("a" * 2500,), ("x",)])
    assert isinstance(failed, Failed)
    assert failed.error.code == "text_too_long"
    assert [first, last] == [nearly(row) for row in OPERATIONS[name].run(model, seen[:2], [("what is it?",), ("x",)])]


@pytest.mark.parametrize("name", ["optimize --answer", "ask -O"])
def test_nothing_is_asked_where_every_row_failed(name: str, model: vli.Model, seen: Sequence[Seen]) -> None:
    (failed,) = OPERATIONS[name].run(model, [not_finite(seen[0])], QUESTIONS[:1])
    assert isinstance(failed, Failed)
    assert failed.error.code == "non_finite_logits"


def test_answers_are_those_to_the_initial_and_the_chosen_instruction(model: vli.Model, seen: Sequence[Seen]) -> None:
    operation = Optimize(answer=True, optimization=replace(SHORT, select="paper"), generation=GENERATION)
    for row, record in enumerate(operation.run(model, seen, QUESTIONS)):
        assert isinstance(record, dict)
        picture = seen[row]
        assert record["initial_answer"] == model.ask(picture, QUESTIONS[row][0], generation=GENERATION).text
        assert record["answer"] == model.ask(picture, record["optimized"]["text"], generation=GENERATION).text


def test_the_record_names_the_question_and_what_was_asked_in_the_end(model: vli.Model, seen: Sequence[Seen]) -> None:
    operation = Ask(template="Question: {question} {0} Answer:", generation=GENERATION)
    question = "is {question} in braces?"
    (record,) = operation.run(model, seen[:1], [(question,)])
    assert isinstance(record, dict)
    assert record["question"] == question
    assert record["instruction"] == "Question: is {question} in braces? {0} Answer:"
    assert record["answer"] == model.ask(seen[0], record["instruction"], generation=GENERATION).text


def test_several_instructions_of_a_picture_are_scored_in_their_order(model: vli.Model, seen: Sequence[Seen]) -> None:
    texts = [("b", "a", "b"), ("c",), ("a", "c")]
    records = Score().run(model, seen, texts)
    for row, record in enumerate(records):
        assert isinstance(record, dict)
        assert [scored["instruction"] for scored in record["scores"]] == list(texts[row])
        assert record["scores"][0]["ias"] == pytest.approx(model.score(seen[row], texts[row][0])[0].ias, abs=3e-5)


def test_an_ias_is_the_mean_of_its_tokens(model: vli.Model, seen: Sequence[Seen]) -> None:
    (record,) = Score().run(model, seen[:1], [("what is it?",)])
    assert isinstance(record, dict)
    (scored,) = record["scores"]
    assert len(scored["tokens"]) == len(scored["token_nll"])
    assert scored["ias"] == pytest.approx(sum(scored["token_nll"]) / len(scored["token_nll"]), abs=1e-5)


@any_operation
def test_the_resume_key_sees_every_setting(operation: Operation) -> None:
    assert set(operation.settings()) == {field.name for field in fields(operation)}  # type: ignore[arg-type]
    json.dumps(operation.settings())


def test_operations_that_differ_have_settings_that_differ() -> None:
    variants = [
        Ask(),
        Ask(template="Q: {question}"),
        Ask(choices=("a", "b")),
        Ask(choices=("b", "a")),
        Ask(optimize=True),
        Ask(optimization=OptimizationSettings(select="paper")),
        Ask(generation=GenerationSettings(seed=1)),
        Ask(generation=GenerationSettings(num_beams=5)),
    ]
    written = [json.dumps(variant.settings(), sort_keys=True) for variant in variants]
    assert len(set(written)) == len(variants)


def test_every_operation_has_a_schema_of_its_own() -> None:
    schemas = {operation.schema for operation in OPERATIONS.values()}
    assert schemas == {"vlinstruct.ask/1", "vlinstruct.optimize/1", "vlinstruct.score/1"}


def test_importing_operations_imports_no_torch() -> None:
    code = "import sys, vlinstruct.operations; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
