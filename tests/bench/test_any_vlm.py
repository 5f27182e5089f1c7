"""On one model, transformers' arms and ours write the same, as long as they are asked to, and all are reported."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from command_line import vli

if TYPE_CHECKING:
    from vlinstruct.backends.transformers.any_vlm import TransformersBackend

pytestmark = pytest.mark.skipif(
    tuple(int(part) for part in version("transformers").split(".")[:2]) < (5, 23), reason="needs transformers 5.23"
)
ANSWER_TOKENS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from backends.transformers.tiny_families import build

    return build("smolvlm", tmp_path_factory.mktemp("families") / "smolvlm")


@pytest.fixture(scope="module")
def backend(folder: Path) -> Iterator[TransformersBackend]:
    from vlinstruct.backends.opening import load_backend
    from vlinstruct.backends.transformers.any_vlm import TransformersBackend
    from vlinstruct.settings import ModelSettings

    backend = load_backend(folder, ModelSettings(device="cpu"))
    assert isinstance(backend, TransformersBackend)
    yield backend
    assert not backend.model.get_output_embeddings()._forward_hooks, "the model is left as it was"


@pytest.mark.parametrize("batch", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_equal_work_is_measured(batch: int, backend: TransformersBackend) -> None:
    from vlinstruct.bench.answers import ARMS
    from vlinstruct.bench.any_vlm import compare_vlm, vlm_record, vlm_table

    (comparison,) = compare_vlm(backend, [ANSWER_TOKENS], batch_sizes=[batch], runs=2)
    assert comparison.has_same_texts
    assert comparison.largest_difference <= 1e-5
    (record,) = vlm_record("tiny", [comparison], {})["comparisons"]
    for part in ("seconds", "cache_bytes", "median_ratio_to_transformers_plain"):
        assert list(record[part]) == list(ARMS)
    assert record["median_ratio_to_transformers_plain"][ARMS[0]] == 1.0
    assert all(arm in vlm_table([comparison]) for arm in ARMS)
    # An optimized answer of ours holds the picture and the comparison at once.
    assert comparison.cache_bytes[ARMS[3]] > comparison.cache_bytes[ARMS[2]] > 0


def test_every_batch_size_is_a_comparison_of_its_own(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlinstruct.bench import any_vlm
    from vlinstruct.bench.answers import ARMS

    monkeypatch.setattr(any_vlm, "timed_in_turns", lambda arms, runs: ())
    compared = any_vlm.compare_vlm(backend, [ANSWER_TOKENS], batch_sizes=[2, 1], runs=2)
    assert [one.batch for one in compared] == [2, 1]
    for one in compared:
        theirs, ours = one.work[ARMS[0]], one.work[ARMS[2]]
        # A picture's beginning, which is kept, is a pass of its own; nothing is read twice.
        assert (theirs.num_calls, ours.num_calls) == (ANSWER_TOKENS, 1 + ANSWER_TOKENS)
        assert theirs.num_tokens == ours.num_tokens
        assert one.work[ARMS[1]].num_tokens > one.work[ARMS[3]].num_tokens > ours.num_tokens
    assert compared[0].work[ARMS[0]].num_tokens > 2 * compared[1].work[ARMS[0]].num_tokens  # questions are numbered


def test_every_text_has_the_length_that_is_asked_for(backend: TransformersBackend) -> None:
    from vlinstruct.backend import Row
    from vlinstruct.bench.any_vlm import words_alone
    from vlinstruct.settings import GenerationSettings
    from vlinstruct.values import good

    rows = [Row(prompt="Describe the image"), Row(prompt="What is it, and how many are there?")]
    with words_alone(backend) as arms:
        for arm in arms:
            for written in map(good, arm.write(rows, GenerationSettings(max_new_tokens=12))):
                assert len(backend.template.tokenizer(f" {written.text}").input_ids) == 12


def test_what_differs_is_told(backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlinstruct.bench import any_vlm
    from vlinstruct.bench.naive import NaiveBackend

    write, score = NaiveBackend.write, backend.plain_nll

    def shortened(self: Any, rows: Any, settings: Any) -> Any:
        return write(self, rows, replace(settings, max_new_tokens=settings.max_new_tokens - 1))

    monkeypatch.setattr(NaiveBackend, "write", shortened)
    monkeypatch.setattr(backend, "plain_nll", lambda row, target: [nats + 0.5 for nats in score(row, target)])
    monkeypatch.setattr(any_vlm, "timed_in_turns", lambda arms, runs: ())
    (comparison,) = any_vlm.compare_vlm(backend, [ANSWER_TOKENS], batch_sizes=[1], runs=2)
    assert comparison.largest_difference == pytest.approx(0.5, abs=1e-4)
    assert not comparison.has_same_texts


@pytest.mark.slow
def test_a_folder_without_weights_is_measured_with_random_ones(tmp_path: Path) -> None:
    from .vlm_shapes import write_folder

    write_folder("tiny", tmp_path)
    asked = ("bench", "--random-weights", "--backbone", tmp_path, "--runs", "2", "--device", "cpu")
    (record,) = vli(*asked, "--json").records
    assert [one["answer_tokens"] for one in record["comparisons"]] == [5, 30]
    assert all(one["has_same_texts"] for one in record["comparisons"])


def test_random_weights_need_the_models_own_processor(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "config.json", tmp_path)
    assert "processor" in vli("bench", "--random-weights", "--backbone", tmp_path).refusal(5)


@pytest.mark.slow
def test_questions_of_a_file_are_measured(folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (60, 40), "red").save(tmp_path / "a.png")
    data = tmp_path / "questions.jsonl"
    data.write_text('{"image": "a.png", "question": "What is it?"}\n')
    asked = ("bench", "--backbone", folder, "--data", data, "--runs", "2", "--device", "cpu")
    (record,) = vli(*asked, "--json").records
    assert (record["schema"], record["questions"]) == ("vlinstruct.bench.questions/1", 1)


@pytest.mark.parametrize(
    "option", [("--training",), ("--candidates", "3"), ("--acceptance", "1"), ("--cold-runs", "2")]
)
def test_what_belongs_to_instructblip_alone_is_refused(option: tuple[str, ...], folder: Path) -> None:
    assert option[0] in vli("bench", "--backbone", folder, *option).refusal(4)
