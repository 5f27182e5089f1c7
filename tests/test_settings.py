"""Settings are checked when they are made, all problems named together."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Unpack, get_args, get_type_hints

import pytest

import vlinstruct as vli
from vlinstruct.errors import UsageError
from vlinstruct.settings import GenerationSettings, OptimizationSettings, Thresholds


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 to 4096, got 0"),
        ({"num_beams": 65}, "num_beams must be 1 to 64, got 65"),
        ({"length_penalty": float("nan")}, "length_penalty must be finite"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
        ({"temperature": -1.0}, "temperature must be above 0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1"),
        ({"seed": -1}, "seed must be 0 to 2"),
        ({"seed": 2**64}, "seed must be 0 to 2"),
        ({"do_sample": True, "num_beams": 2}, "sampling needs num_beams 1"),
    ],
)
def test_a_setting_out_of_range_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words.replace("^", r"\^")):
        GenerationSettings(**settings)


def test_all_problems_are_named_together() -> None:
    with pytest.raises(UsageError) as caught:
        GenerationSettings(max_new_tokens=0, num_beams=0)
    assert "max_new_tokens" in caught.value.message
    assert "num_beams" in caught.value.message


def test_optimization_is_greedy_and_checked() -> None:
    assert OptimizationSettings(max_new_tokens=7).generation() == GenerationSettings(max_new_tokens=7)
    with pytest.raises(UsageError, match="select must be safe or cross or agree or ias or paper"):
        OptimizationSettings(select="best")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"when": "never"}, "when must be unsure or always, got 'never'"),
        ({"num_rewritings": 0}, "num_rewritings must be 1 to 64, got 0"),
        ({"max_cross_nll": 0.0}, "max_cross_nll must be above 0, got 0.0"),
        ({"max_cross_nll": math.nan}, "max_cross_nll must be above 0, got nan"),
        ({"sure_above": 1.1}, "sure_above must be 0 to 1, got 1.1"),
        ({"sure_above": math.nan}, "sure_above must be 0 to 1, got nan"),
        ({"least_certainty": -0.1}, "least_certainty must be 0 to 1, got -0.1"),
        ({"keep": "left"}, "keep must be a list of texts, got 'left'"),
        ({"variants": "what?"}, r"variants must be a list of texts, got 'what\?'"),
    ],
)
def test_a_setting_of_optimization_out_of_range_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        OptimizationSettings(**settings)


def test_a_threshold_that_is_set_comes_before_the_backbones_own() -> None:
    own = Thresholds(least_certainty=0.8, max_cross_nll=2.0, sure_above=0.9)
    assert OptimizationSettings().thresholds(own) == own
    settings = OptimizationSettings(least_certainty=0.0, sure_above=0.0)
    assert settings.thresholds(own) == Thresholds(least_certainty=0.0, max_cross_nll=2.0, sure_above=0.0)


VERBS: list[tuple[Callable[..., Any], list[type]]] = [
    (vli.Model.ask, [GenerationSettings, OptimizationSettings]),
    (vli.Model.chat, [GenerationSettings, OptimizationSettings]),
    (vli.Model.optimize, [OptimizationSettings]),
    (vli.Model.optimize_shared, [OptimizationSettings]),
    (vli.optimize_shared, [OptimizationSettings]),
    (vli.evaluate, [vli.EvaluationSettings]),
    (vli.tune, [vli.TuneSettings]),
    (vli.finetune, [vli.TrainingSettings]),
    (vli.plan_finetuning, [vli.TrainingSettings]),
]
"""With the settings whose fields they take."""


def typed_options(verb: Callable[..., Any]) -> dict[str, Any]:
    """What an editor offers for `**options: Unpack[...]`."""
    (hint,) = [
        hint for name, hint in inspect.get_annotations(inspect.unwrap(verb)).items() if str(hint).startswith("Unpack[")
    ]
    (options,) = get_args(eval(hint, {**vars(inspect.getmodule(inspect.unwrap(verb))), "Unpack": Unpack}))
    return get_type_hints(options)


@pytest.mark.parametrize(("verb", "kinds"), VERBS, ids=lambda value: getattr(value, "__qualname__", ""))
def test_what_an_editor_and_a_notebook_offer_is_what_the_settings_have(
    verb: Callable[..., Any], kinds: list[type]
) -> None:
    types = {field.name: get_type_hints(kind)[field.name] for kind in kinds for field in fields(kind)}
    assert typed_options(verb) == types
    shown = inspect.signature(verb).parameters
    assert types.keys() <= shown.keys()
    assert all(it.kind is not inspect.Parameter.VAR_KEYWORD for it in shown.values())


def test_what_is_left_out_is_shown_where_the_settings_alone_say_it() -> None:
    assert inspect.signature(vli.Model.ask).parameters["max_new_tokens"].default == GenerationSettings().max_new_tokens
    assert inspect.signature(vli.finetune).parameters["learning_rate"].default is ...  # the backbone's recipe says it


@pytest.mark.parametrize(("verb", "kinds"), [*VERBS, (vli.load, [])], ids=lambda it: getattr(it, "__qualname__", ""))
def test_a_name_that_is_no_setting_is_refused_with_the_nearest(verb: Callable[..., Any], kinds: list[type]) -> None:
    name = fields(kinds[0])[0].name if kinds else "device"
    with pytest.raises(UsageError, match=rf"unknown setting {name}s; did you mean {name}\?"):
        verb(**{f"{name}s": 1})
