"""The guard: a candidate is used where its answer answers the user's own words, however the answer comes about."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest

from vlinstruct.errors import TextError
from vlinstruct.instruction import optimize
from vlinstruct.instruction.choose import JUDGED
from vlinstruct.instruction.judge import Answering
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings, OptimizationSettings, Select
from vlinstruct.values import Failed, TokenScores

from .conftest import FakeBackend


def run(model, templates, texts, settings):
    return optimize(model, range(len(texts)), texts, templates=templates, settings=settings)


def judged(select="cross", **settings):
    return OptimizationSettings(select=select, when="always", **settings)


def test_a_candidate_that_cannot_be_answered_costs_itself_alone(templates):
    answers = dict.fromkeys(("what?", "Tell me: what?", "Which?"), "red")
    known = {"answers": answers, "cross": {"red": 0.1}, "ias": {"what?": 3.0, "Tell me: what?": 1.0, "Which?": 2.0}}
    (whole,) = run(FakeBackend(**known, look=lambda *row: "Which?"), templates, ["what?"], judged())

    class Failing(FakeBackend):
        def _failed(self, row):
            is_it = row.stage == "judge" and row.prompt == "Tell me: what?"
            return Failed(error=TextError("too long", code="text_too_long")) if is_it else None

    (outcome,) = run(Failing(**known, look=lambda *row: "Which?"), templates, ["what?"], judged())
    assert (whole.chosen, outcome.chosen) == ("rewritten", "optimized")
    assert outcome.rewritten.faults == ("could not be answered",)
    assert "the rewritten one could not be answered" in outcome.reason
    assert (outcome.initial, outcome.optimized) == (whole.initial, whole.optimized)


@pytest.mark.parametrize("select", sorted(JUDGED))
def test_a_refused_text_is_not_worth_an_answer(fake, templates, select):
    model = fake(rewritten=lambda _: "How many?", look=lambda *row: "How many?")
    (outcome,) = run(model, templates, ["How many of 3?"], judged(select))
    assert [call.prompts for call in model.called("judge")] == [("How many of 3?",)]
    assert outcome.rewritten.judgement is None
    assert outcome.chosen == "initial"


def test_without_scores_the_cross_check_asks_for_the_same_answer(templates):
    for answer, chosen in (("Red.", "rewritten"), ("blue", "initial")):
        answers = {"what?": "red", "Tell me: what?": answer}
        for select in ("cross", "safe", "agree"):
            model = FakeBackend(answers=answers, nll=lambda prompt: (0.1,) if prompt.startswith("Tell") else (0.9,))
            model.abilities = replace(model.abilities, can_score=False)
            (outcome,) = run(model, templates, ["what?"], judged(select))
            assert outcome.chosen == chosen
            assert outcome.rewritten.judgement.cross_nll is None
            assert outcome.optimized is None, "without an IAS there is nothing to compare by"
            assert not model.called("score")


def test_a_cross_check_that_is_not_finite_asks_for_the_same_answer(templates, not_finite):
    ias = {"what?": 3.0, "Tell me: what?": 1.0}
    for answer, chosen in (("Red.", "rewritten"), ("blue", "initial")):
        answers = {"what?": "red", "Tell me: what?": answer}
        model = FakeBackend(answers=answers, ias=ias, cross={answer: not_finite}, look=lambda *row: "what?")
        (outcome,) = run(model, templates, ["what?"], judged())
        assert outcome.chosen == chosen


@pytest.mark.parametrize(("max_cross_nll", "chosen"), [(1.9, "initial"), (2.1, "rewritten")])
def test_choices_pass_the_same_guard(templates, max_cross_nll, chosen):
    class Ranking(FakeBackend):
        """Under the rewriting "no" is the likelier choice, under the user's own words "yes" by two nats."""

        def scores(self, row, target):
            if row.stage != "judge":
                return super().scores(row, target)
            is_likely = (target == "no") == row.prompt.startswith("Tell me")
            nats = 0.0 if is_likely else math.log(math.exp(2) - 1)
            return TokenScores(tokens=("a", "</s>"), token_nll=(nats, nats))

    model = Ranking(ias={"what?": 3.0, "Tell me: what?": 1.0}, look=lambda *row: "what?")
    (outcome,) = optimize(
        model,
        [0],
        ["what?"],
        templates=templates,
        settings=judged(max_cross_nll=max_cross_nll),
        answering=Answering(choices=[["yes", "no"]]),
    )
    assert outcome.rewritten.judgement.cross_nll == pytest.approx(2.0)
    assert outcome.chosen == chosen


@pytest.mark.parametrize("select", get_args(Select))
def test_a_template_wraps_what_was_chosen(select):
    ias = {"what?": 3.0, "Tell me: what?": 1.0}
    model = FakeBackend(ias=ias, look=lambda *row: "Tell me: what?", cross={"Tell me: what?": 0.1})
    wrap = "Question: {} Short answer:".format
    (answer,) = Model(model).ask_each([0], ["what?"], wraps=[wrap], optimize=True, optimization=judged(select))
    assert answer.optimization.instruction == "Tell me: what?"
    assert answer.instruction == wrap("Tell me: what?")
    # Neither the rewriting nor an IAS reads the template.
    texts = [text for stage in ("rewrite", "score", "compare") for call in model.called(stage) for text in call.reads]
    assert not any("Short answer" in text for text in texts)
    assert "Short answer" not in model.called("rewrite")[0].prompts[0]


@pytest.mark.parametrize("generation", [GenerationSettings(), GenerationSettings(num_beams=3)])
def test_the_answer_is_that_to_the_chosen_instruction(generation):
    ias = {"what?": 3.0, "Tell me: what?": 1.0}
    model = Model(FakeBackend(ias=ias, answers={"what?": "red", "Tell me: what?": "Red."}, cross={"Red.": 0.1}))
    (answer,) = model.ask_each([0], ["what?"], optimize=True, optimization=judged(), generation=generation)
    (plain,) = model.ask_each([0], ["Tell me: what?"], generation=generation)
    assert (answer.optimization.chosen, replace(answer, optimization=None)) == ("rewritten", plain)


def test_what_was_judged_is_not_answered_again():
    model = FakeBackend()
    Model(model).ask_each([0, 1], ["what?", "why?"], optimize=True, optimization=judged())
    assert model.called("answer") == []


@pytest.mark.parametrize("select", sorted(JUDGED))
def test_nothing_is_said_of_an_answer_that_was_not_asked_for(fake, templates, select):
    (outcome,) = run(fake(rewritten=lambda _: "How?", look=lambda *row: "How?"), templates, ["How 3?"], judged(select))
    assert outcome.reason.endswith("the rewritten one loses the number 3, the optimized one loses the number 3")
