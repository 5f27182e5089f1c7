"""What `--model_args` and `generation_kwargs` may say."""

from __future__ import annotations

import doctest
import logging
from typing import Any

import pytest

from vlinstruct.errors import ResourceError, UsageError
from vlinstruct.integrations.lmms_eval import settings as plugin_settings
from vlinstruct.integrations.lmms_eval.settings import Generation, Settings, read_generation, reworded
from vlinstruct.settings import GenerationSettings

DEFAULT = GenerationSettings(max_new_tokens=64, seed=5)


def test_arguments_come_as_lmms_eval_parses_them() -> None:
    given = {"pretrained": 7, "optimize": True, "batch_size": "8", "max_new_tokens": 12, "quantize": "8bit"}
    settings = Settings.read(given)
    assert (settings.pretrained, settings.optimize, settings.batch_size) == ("7", True, 8)
    assert settings.generation == GenerationSettings(max_new_tokens=12)
    assert (settings.quantization, Settings().quantization) == ("8bit", None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimize": "maybe"}, "cannot use --model_args (optimize): it must be True or False, got 'maybe'"),
        ({"optimize": 1}, "cannot use --model_args (optimize): it must be True or False, got 1"),
        ({"batch_size": "auto"}, "cannot use --model_args (batch_size): it must be a whole number, got 'auto'"),
        ({"batch_size": 0}, "batch_size must be 1 to 1024, got 0"),
        ({"seed": 1.5}, "cannot use --model_args (seed): it must be a whole number, got 1.5"),
        ({"quantize": "2bit"}, "quantize must be 8bit or 4bit, got '2bit'"),
        ({"select": "best"}, "select must be safe or cross or agree or ias or paper, got 'best'"),
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 to 4096, got 0"),
    ],
)
def test_arguments_out_of_range_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Settings.read(given)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, DEFAULT),
        (
            {"max_new_tokens": 16, "num_beams": 5, "length_penalty": -1, "do_sample": False},
            GenerationSettings(max_new_tokens=16, num_beams=5, length_penalty=-1.0, seed=5),
        ),
        ({"temperature": 0, "top_p": None, "num_beams": 1}, DEFAULT),
        ({"temperature": 0, "do_sample": True, "top_p": 0}, DEFAULT),
        ({"temperature": 0.7, "do_sample": False, "top_p": 0.5}, DEFAULT),
        (
            {"temperature": 0.7, "top_p": 0.5},
            GenerationSettings(max_new_tokens=64, seed=5, do_sample=True, temperature=0.7, top_p=0.5),
        ),
        ({"do_sample": True}, GenerationSettings(max_new_tokens=64, seed=5, do_sample=True)),
    ],
)
def test_generation_kwargs_become_our_settings(asked: dict[str, Any], expected: GenerationSettings) -> None:
    assert read_generation(asked, DEFAULT).settings == expected


@pytest.mark.parametrize(
    ("until", "expected"),
    [(None, ()), ("\n\n", ("\n\n",)), (["a", "", None, "b"], ("a", "b")), ([], ())],
)
def test_until_is_one_text_or_several(until: object, expected: tuple[str, ...]) -> None:
    assert read_generation({"until": until}, DEFAULT).until == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_beams": "many"}, "cannot use generation_kwargs (num_beams): 'many' is no number"),
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 to 4096, got 0"),
        ({"max_new_tokens": float("inf")}, "cannot use generation_kwargs (max_new_tokens): inf is no finite number"),
        ({"num_beams": 5, "temperature": 1.0}, "sampling needs num_beams 1"),
    ],
)
def test_generation_kwargs_out_of_range_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_generation(asked, DEFAULT)
    assert caught.value.message == message


def test_what_has_no_effect_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    plugin_settings._warn_of_ignored.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            read_generation({"top_k": 3, "image_aspect_ratio": "original"}, DEFAULT)
    assert caplog.messages == ["2 generation_kwargs have no effect: image_aspect_ratio, top_k"]


def test_only_sampling_has_another_seed_when_it_is_repeated() -> None:
    greedy = Generation(settings=DEFAULT)
    sampling = read_generation({"do_sample": True}, DEFAULT)
    assert greedy.repeated(2) == greedy
    assert [sampling.repeated(times).settings.seed for times in range(3)] == [5, 6, 7]


def test_examples_are_true() -> None:
    assert doctest.testmod(plugin_settings).failed == 0


def test_more_tokens_than_are_ever_written_are_clamped_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        generation = read_generation({"max_new_tokens": 49_152}, GenerationSettings())
        assert generation.settings.max_new_tokens == 4096
    assert [record.getMessage() for record in caplog.records] == ["max_new_tokens is 49152: at most 4096 are written"]


@pytest.mark.parametrize(
    ("advice", "said"),
    [
        (
            "Use --dtype bfloat16 (4.2 GB) or --quantize 8bit (2.1 GB)",
            "Use dtype=bfloat16 (4.2 GB) or quantize=8bit (2.1 GB)",
        ),
        ("Use --quantize 4bit, or a smaller --backbone", "Use quantize=4bit, or a smaller pretrained"),
        ("Connect, or use --backbone mini", "Connect, or use pretrained=mini"),
        ("Log in", "Log in"),
    ],
)
def test_advice_names_model_args_in_place_of_our_options(advice: str, said: str) -> None:
    error = reworded(ResourceError("--dtype is too narrow", advice=advice, code="out_of_memory"))
    assert (type(error), error.problem, error.advice, error.code) == (
        ResourceError,
        "dtype is too narrow",
        said,
        "out_of_memory",
    )
    assert reworded(error, of="document 7").problem == "document 7: dtype is too narrow"
