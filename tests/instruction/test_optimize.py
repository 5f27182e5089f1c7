from __future__ import annotations

import math

import pytest

from vlinstruct.errors import ScoreError, UsageError
from vlinstruct.instruction import optimize
from vlinstruct.instruction.choose import JUDGED
from vlinstruct.settings import OptimizationSettings
from vlinstruct.values import Optimization

IAS, PAPER = OptimizationSettings(select="ias"), OptimizationSettings(select="paper")
ALWAYS = OptimizationSettings(when="always")
TEXTS = ["what is it?", "How many 3?", "what is it?", "(a) cat (b) dog", "{instruction} 'x'"]


def run(model, templates, texts, settings=IAS):
    return optimize(model, range(len(texts)), texts, templates=templates, settings=settings)


def test_the_steps_are_those_of_algorithm_2(fake, templates):
    model = fake()
    run(model, templates, ["what?"])
    steps = [("write", "rewrite"), ("score", "score"), ("write", "compare"), ("score", "compare")]
    assert [(call.method, call.stage) for call in model.calls] == steps


@pytest.mark.parametrize("select", sorted(JUDGED))
def test_a_judging_rule_answers_first_and_judges_last(fake, templates, select):
    model = fake()
    run(model, templates, ["what?"], OptimizationSettings(select=select, when="always"))
    answered = ("write", "judge")
    steps = [("write", "rewrite"), ("score", "score"), ("write", "compare"), ("score", "compare")]
    assert [(call.method, call.stage) for call in model.calls] == [answered, *steps, answered, ("score", "judge")]


def test_the_two_ias_come_from_one_batch(fake, templates):
    model = fake()
    run(model, templates, ["a", "b"])
    (first,), (_, second) = model.called("score"), model.called("compare")
    assert first.images == (0, 0, 1, 1)
    assert first.texts == first.reads == ("a", "Tell me: a", "b", "Tell me: b")
    assert second.images == (0, 1)


@pytest.mark.parametrize("settings", [IAS, PAPER, ALWAYS, OptimizationSettings(num_rewritings=3, variants=("b 3",))])
def test_batch_equals_one_by_one(fake, templates, settings):
    batch = run(fake(), templates, TEXTS, settings)
    for row, text in enumerate(TEXTS):
        model = fake()
        assert optimize(model, [row], [text], templates=templates, settings=settings) == [batch[row]]


def test_a_row_without_a_finite_score_does_not_bring_the_others_down(fake, templates, not_finite):
    broken = {"bad": not_finite, "Tell me: bad": not_finite}
    first, failed, last = run(fake(ias=broken), templates, ["a", "bad", "c"])
    assert isinstance(failed.error, ScoreError)
    assert failed.error.exit_code == 4
    model = fake()
    assert [first] == run(model, templates, ["a"])
    assert [last] == optimize(model, [2], ["c"], templates=templates, settings=IAS)


@pytest.mark.parametrize("too_long", ["There is the text bad", "Tell me: bad", "Instruction: bad", "bad Look at"])
def test_a_row_that_fails_in_any_step_does_not_bring_the_others_down(fake, templates, too_long):
    model = fake(too_long=too_long)
    first, failed, last = run(model, templates, ["a", "bad", "c"])
    assert (failed.error.code, failed.error.exit_code) == ("text_too_long", 4)
    assert [first] == run(fake(), templates, ["a"])
    assert [last] == optimize(fake(), [2], ["c"], templates=templates, settings=IAS)


def test_no_finite_score_at_all_stops_before_the_comparison(fake, templates, not_finite):
    model = fake(ias={"a": not_finite, "Tell me: a": not_finite})
    (failed,) = run(model, templates, ["a"])
    assert isinstance(failed.error, ScoreError)
    assert model.called("compare") == []


def test_without_a_usable_score_the_initial_instruction_stays(fake, templates):
    model = fake(rewritten=lambda _: "how many", look=lambda *row: "many", ias={"how many 3": math.nan})
    (outcome,) = run(model, templates, ["how many 3"])
    assert (outcome.chosen, outcome.instruction) == ("initial", "how many 3")


def test_a_score_that_is_not_finite_never_wins_and_is_said(fake, templates, not_finite):
    model = fake(look=lambda *row: "c", ias={"a": 2.0, "Tell me: a": not_finite, "c": not_finite})
    (outcome,) = run(model, templates, ["a"])
    assert outcome.chosen == "initial"
    assert outcome.notices == (
        "the rewritten instruction has no finite IAS and was left out of the comparison",
        "the optimized instruction has no finite IAS",
    )


def test_paper_always_takes_the_optimized_instruction(fake, templates):
    outcomes = run(fake(), templates, TEXTS, PAPER)
    assert {outcome.chosen for outcome in outcomes} == {"optimized"}
    assert outcomes[0].instruction == outcomes[0].optimized.text


def test_no_rule_but_the_papers_takes_an_instruction_that_lost_the_content(fake, templates):
    lossy = {"rewritten": lambda _: "What?", "look": lambda *row: "Tell.", "ias": {"What?": 0.1, "Tell.": 0.2}}
    for text in ["How many 3?", "What is 'stop'?", "(a) cat (b) dog"]:
        (outcome,) = run(fake(**lossy), templates, [text])
        assert (outcome.chosen, outcome.instruction) == ("initial", text)


def test_an_optimized_instruction_that_is_known_is_not_scored_again(fake, templates):
    model = fake(look=lambda image, prompt, text: text if image else "new")
    first, second = run(model, templates, ["a", "b"])
    _, call = model.called("compare")
    assert (call.images, call.targets) == ((0,), (("new",),))
    assert second.optimized == second.initial
    assert first.optimized.text == "new"


def test_an_empty_rewriting_and_comparison_leave_the_initial_instruction_with_notices(fake, templates):
    model = fake(rewritten=lambda _: "", look=lambda *row: "")
    (outcome,) = run(model, templates, ["a"])
    assert outcome.initial == outcome.rewritten == outcome.optimized
    assert outcome.chosen == "initial"
    assert [notice.split(":")[0] for notice in outcome.notices] == [
        "the rewriting was empty",
        "the comparison returned nothing",
    ]
    assert model.called("score")[0].texts == ("a",)
    assert [call.method for call in model.called("compare")] == ["write"]


@pytest.mark.parametrize(("stage", "name"), [("rewrite", "rewriting"), ("compare", "comparison")])
def test_a_generated_text_that_overflows_leaves_the_instructions_that_are_there(fake, templates, stage, name):
    (outcome,) = run(fake(overflows=stage, ias={"a": 1.0, "Tell me: a": 2.0}), templates, ["a"])
    stand_in = outcome.rewritten if stage == "rewrite" else outcome.optimized
    assert stand_in == outcome.initial
    assert [notice.partition(" could not be computed")[0] for notice in outcome.notices] == [f"the {name}"]


def test_scores_that_overflow_fail_their_row(fake, templates):
    (outcome,) = run(fake(overflows="score"), templates, ["a"])
    assert outcome.error.code == "non_finite_logits"


def test_all_goes_well_without_notices(fake, templates):
    (outcome,) = run(fake(), templates, ["a"])
    assert isinstance(outcome, Optimization)
    assert outcome.notices == ()


def test_the_same_input_gives_the_same_outcome(fake, templates):
    assert run(fake(), templates, TEXTS) == run(fake(), templates, TEXTS)


def test_what_a_user_types_comes_through_unchanged(fake, templates, hostile):
    (outcome,) = run(fake(), templates, [hostile])
    assert outcome.initial.text == hostile
    assert outcome.rewritten.text == f"Tell me: {hostile}".strip()


def test_nothing_to_optimize_calls_no_model(fake, templates):
    model = fake()
    assert run(model, templates, []) == []
    assert model.calls == []


def test_images_and_instructions_must_go_together(fake, templates):
    model = fake()
    with pytest.raises(UsageError, match="got 2 for 1 images"):
        optimize(model, [1], ["a", "b"], templates=templates, settings=IAS)
    assert model.calls == []
