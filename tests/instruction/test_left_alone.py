"""Where the answer to the user's own words is certain they are left alone, and that costs nothing at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from vlinstruct.backend import ProfiledBackend
from vlinstruct.instruction import Templates, optimize
from vlinstruct.instruction.judge import Answering
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings, OptimizationSettings, Thresholds
from vlinstruct.values import Abilities, Answer, Failed, Optimization, good

from .conftest import FakeBackend

TEXTS = ["sure?", "unsure?", "sure 2?", "which of 3?"]
CERTAINTIES = {"sure?": 0.9, "unsure?": 0.3, "sure 2?": 0.8, "which of 3?": 0.5}
GENERATIONS = [GenerationSettings(), GenerationSettings(num_beams=3), GenerationSettings(do_sample=True, seed=3)]


def backend(**more: Any) -> FakeBackend:
    """Answers with these certainties; a rewriting is answered alike and has the lower IAS."""

    def nll(prompt: str) -> tuple[float, ...]:
        return (0.0, -math.log(CERTAINTIES.get(prompt, 0.6)))

    answers = {**{text: f"to {text}" for text in TEXTS}, **{f"Tell me: {text}": f"to {text}" for text in TEXTS}}
    scores = {**dict.fromkeys(TEXTS, 3.0), **{f"Tell me: {text}": 1.0 for text in TEXTS}}
    fields: dict[str, Any] = {"answers": answers, "ias": scores, "cross": {f"to {text}": 0.1 for text in TEXTS}}
    return FakeBackend(**{**fields, "nll": nll, "look": lambda image, prompt, text: f"Tell me: {text}", **more})


def asked(model: FakeBackend, settings: OptimizationSettings | None, **more: Any) -> tuple[list[Answer], list[Any]]:
    """The answers without how they came about, and what it took: calls, rows and texts."""
    profiled = ProfiledBackend(model)
    own = {"optimize": True, "optimization": settings} if settings is not None else {}
    answers = Model(profiled).ask_each(range(len(TEXTS)), TEXTS, **own, **more)
    costs = profiled.costs.values()
    calls: list[Any] = [(call.method, call.prompts, call.reads, call.targets) for call in model.calls]
    return [replace(good(answer), optimization=None) for answer in answers], [
        sum(cost.num_calls for cost in costs),
        sum(cost.num_rows for cost in costs),
        *calls,
    ]


def ran(settings: OptimizationSettings, templates: Templates, texts: Sequence[str] = TEXTS) -> list[Optimization]:
    outcomes = optimize(backend(), range(len(texts)), texts, templates=templates, settings=settings)
    return [good(outcome) for outcome in outcomes]


@pytest.mark.parametrize("select", ["safe", "agree", "ias", "paper"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"choices": [["to sure?", "no"]] * 4},
        {"wraps": [lambda text: f"Q: {text}"] * 4},
        {"generation": GenerationSettings(max_new_tokens=3)},
    ],
    ids=["written", "ranked", "wrapped", "short"],
)
def test_left_alone_everything_is_the_plain_answer_at_its_price(select: Any, more: dict[str, Any]) -> None:
    settings = OptimizationSettings(select=select, when="unsure", sure_above=0.0)
    assert asked(backend(), settings, **more) == asked(backend(), None, **more)


@pytest.mark.parametrize("generation", GENERATIONS[1:])
def test_left_alone_under_beams_and_sampling_the_answer_is_the_plain_one(generation: GenerationSettings) -> None:
    model = backend()
    settings = OptimizationSettings(sure_above=0.0)
    answers, _ = asked(model, settings, generation=generation)
    assert answers == asked(backend(), None, generation=generation)[0]
    assert [call.method for call in model.calls] == ["write", "write"]  # judged, and answered as it was asked for


def test_what_is_certain_is_left_alone_and_says_so(templates: Templates) -> None:
    outcomes = ran(OptimizationSettings(sure_above=0.7), templates)
    assert [outcome.left_alone for outcome in outcomes] == [True, False, True, False]
    first, second, *_ = outcomes
    assert (first.chosen, first.instruction) == ("initial", "sure?")
    assert first.reason == "the answer to your own words is certain (0.90), so they were left alone"
    assert list(first.by_role()) == ["initial"]
    assert math.isnan(first.initial.ias)
    assert first.used.judgement is not None
    assert first.used.judgement.answer.text == "to sure?"
    assert second.chosen == "rewritten"


def test_rows_that_are_left_alone_change_nothing_for_the_others(templates: Templates) -> None:
    settings = OptimizationSettings(sure_above=0.7)
    together = ran(settings, templates)
    (alone,) = optimize(backend(), [1], [TEXTS[1]], templates=templates, settings=settings)
    assert alone == together[1]
    mixed = backend()
    optimize(mixed, range(4), TEXTS, templates=templates, settings=settings)
    first, *later = mixed.calls
    assert first.prompts == tuple(TEXTS)
    # Nothing but the two that are not certain is worked on further.
    assert {picture for call in later for picture in call.images} == {1, 3}
    assert len(mixed.called("rewrite")[0].rows) == 2


@pytest.mark.parametrize("select", ["safe", "cross", "agree", "ias", "paper"])
def test_where_nothing_is_certain_enough_it_is_as_if_always(select: Any, templates: Templates) -> None:
    unsure = OptimizationSettings(select=select, when="unsure", sure_above=1.0)
    always = OptimizationSettings(select=select, when="always")
    assert ran(unsure, templates) == ran(always, templates)


@pytest.mark.parametrize(
    ("settings", "num_alone"),
    [
        (OptimizationSettings(), 2),
        (OptimizationSettings(select="safe", when="always"), 0),
        (OptimizationSettings(select="cross"), 0),
        (OptimizationSettings(select="agree"), 0),
        (OptimizationSettings(select="ias"), 0),
        (OptimizationSettings(select="paper"), 0),
        (OptimizationSettings(select="paper", when="unsure"), 2),
        (OptimizationSettings(sure_above=0.85), 1),
        (OptimizationSettings(sure_above=0.2), 4),
    ],
)
def test_by_default_safe_alone_asks_whether_an_answer_is_certain(
    settings: OptimizationSettings, num_alone: int, templates: Templates
) -> None:
    assert sum(outcome.left_alone for outcome in ran(settings, templates)) == num_alone


def test_the_backbones_threshold_counts_where_none_is_set(templates: Templates) -> None:
    def num_alone(settings: OptimizationSettings) -> int:
        outcomes = optimize(
            backend(), range(4), TEXTS, templates=templates, settings=settings, thresholds=Thresholds(sure_above=0.4)
        )
        return sum(good(outcome).left_alone for outcome in outcomes)

    assert (num_alone(OptimizationSettings()), num_alone(OptimizationSettings(sure_above=0.85))) == (3, 1)


def test_a_higher_threshold_never_leaves_more_alone(templates: Templates) -> None:
    alone = [
        {
            place
            for place, outcome in enumerate(ran(OptimizationSettings(sure_above=gate), templates))
            if outcome.left_alone
        }
        for gate in (0.0, 0.25, 0.45, 0.55, 0.85, 0.95, 1.0)
    ]
    assert all(later <= earlier for earlier, later in pairwise(alone))
    assert [len(places) for places in alone] == [4, 4, 3, 2, 1, 0, 0]


@pytest.mark.parametrize("nll", [(math.nan, 0.0), (0.0, math.nan), (math.inf,), ()])
def test_a_likelihood_that_is_no_number_leaves_nothing_alone(nll: tuple[float, ...], templates: Templates) -> None:
    (outcome,) = optimize(
        backend(nll=lambda prompt: nll), [0], TEXTS[:1], templates=templates, settings=OptimizationSettings()
    )
    assert not good(outcome).left_alone


@pytest.mark.parametrize(("can_score", "num_alone"), [(True, 4), (False, 0)])
def test_a_likelihood_that_does_not_come_with_the_answer_is_asked_for(
    can_score: bool, num_alone: int, templates: Templates
) -> None:
    model = backend(nll=lambda prompt: None, abilities=Abilities(can_tell_nll=False, can_score=can_score))
    outcomes = optimize(model, range(4), TEXTS, templates=templates, settings=OptimizationSettings(sure_above=0.85))
    assert sum(good(outcome).left_alone for outcome in outcomes) == num_alone  # 0.1 nats a token are 0.90


def test_ranked_answers_are_certain_by_the_likeliest_choice(templates: Templates) -> None:
    model = backend(cross={"yes": 0.0, "no": 2.0, "so": 0.1})
    answering = Answering(choices=[["yes", "no"], ["yes", "so"]])
    outcomes = optimize(
        model, range(2), TEXTS[:2], templates=templates, settings=OptimizationSettings(), answering=answering
    )
    assert [good(outcome).left_alone for outcome in outcomes] == [True, False]


def test_who_asks_for_an_instruction_and_no_answer_gets_all_of_algorithm_2() -> None:
    outcomes = Model(backend()).optimize_each(range(4), TEXTS)
    assert not any(good(outcome).left_alone for outcome in outcomes)
    unsure = Model(backend()).optimize_each(range(4), TEXTS, optimization=OptimizationSettings(when="unsure"))
    assert [good(outcome).left_alone for outcome in unsure] == [True, False, True, False]


def test_a_row_whose_own_words_cannot_be_answered_fails_alone(templates: Templates) -> None:
    outcomes = optimize(
        backend(too_long="which of"), range(4), TEXTS, templates=templates, settings=OptimizationSettings()
    )
    assert [isinstance(outcome, Failed) for outcome in outcomes] == [False, False, False, True]


@pytest.mark.parametrize("ranks", [True, False])
def test_every_row_keeps_its_own_choices_and_template_beside_rows_that_are_left_alone(ranks: bool) -> None:
    choices = [[f"yes {row}", f"no {row}", "so"] for row in range(4)] if ranks else None
    wraps = [f"{row}: {{}}".format for row in range(4)]

    def answers(rows: Sequence[int]) -> list[Answer]:
        more = {"choices": None if choices is None else [choices[row] for row in rows]}
        asked_of = Model(backend(nll=lambda prompt: (0.0, -math.log(CERTAINTIES.get(prompt[3:], 0.6)))))
        given = asked_of.ask_each(
            rows,
            [TEXTS[row] for row in rows],
            wraps=[wraps[row] for row in rows],
            optimize=True,
            optimization=OptimizationSettings(sure_above=0.55 if ranks else 0.7),
            **more,
        )
        return [good(answer) for answer in given]

    together = answers(range(4))
    assert together == [answers([row])[0] for row in range(4)]
    is_left_alone = [answer.optimization is not None and answer.optimization.left_alone for answer in together]
    assert len(set(is_left_alone)) == 2
    if choices is not None:
        assert [[choice.text for choice in answer.choices] for answer in together] == choices


def test_an_answer_as_certain_as_the_threshold_is_not_above_it(templates: Templates) -> None:
    sure = backend(nll=lambda prompt: (0.0, 0.0))
    (outcome,) = optimize(sure, [0], TEXTS[:1], templates=templates, settings=OptimizationSettings(sure_above=1.0))
    assert not good(outcome).left_alone
