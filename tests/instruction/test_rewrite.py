from __future__ import annotations

from dataclasses import replace

import pytest

from vlinstruct.instruction import Draft, rewrite
from vlinstruct.settings import OptimizationSettings
from vlinstruct.values import Failed

SETTINGS = OptimizationSettings()


def test_equal_instructions_are_rewritten_once(fake, templates):
    model = fake()
    drafts = rewrite(model, ["a", "b", "a", "a"], templates, SETTINGS)
    assert model.calls[0].prompts == (templates.rewrite_prompt("a"), templates.rewrite_prompt("b"))
    assert len(model.calls) == 1
    assert drafts[0] == drafts[2] == drafts[3] != drafts[1]


def test_batch_equals_one_by_one(fake, templates):
    texts = ["what?", "how many 3", "", "what?"]
    one_by_one = [rewrite(fake(), [text], templates, SETTINGS)[0] for text in texts]
    assert rewrite(fake(), texts, templates, SETTINGS) == one_by_one


def test_a_rewriting_is_stripped(fake, templates):
    assert rewrite(fake(rewritten=lambda _: " \n Better? "), ["a"], templates, SETTINGS) == [
        Draft(text="Better?", certainty=1.0)
    ]


@pytest.mark.parametrize("output", ["", "  ", "\n\t", "\u200b \ufeff"])
def test_an_empty_rewriting_falls_back_to_the_initial_instruction_with_a_notice(fake, templates, output):
    notice = "the rewriting was empty: the initial instruction is used instead"
    assert rewrite(fake(rewritten=lambda _: output), ["a "], templates, SETTINGS) == [
        Draft(text="a ", notice=notice, certainty=1.0)
    ]


def test_nothing_to_rewrite_calls_no_model(fake, templates):
    model = fake()
    assert rewrite(model, [], templates, SETTINGS) == []
    assert model.calls == []


def test_what_a_user_types_reaches_the_model_literally(fake, templates, hostile):
    model = fake()
    rewrite(model, [hostile], templates, SETTINGS)
    assert f"There is the text {hostile}. Please" in model.calls[0].prompts[0]


def test_what_is_known_is_not_rewritten_again(fake, templates):
    model, rewritings = fake(), {}
    first = rewrite(model, ["a", "b"], templates, SETTINGS, rewritings=rewritings)
    assert rewrite(model, ["b", "c", "a"], templates, SETTINGS, rewritings=rewritings)[::2] == first[::-1]
    assert [call.prompts for call in model.calls[1:]] == [(templates.rewrite_prompt("c"),)]


def test_another_template_or_length_rewrites_anew(fake, templates):
    model, rewritings = fake(), {}
    rewrite(model, ["a"], templates, SETTINGS, rewritings=rewritings)
    rewrite(model, ["a"], replace(templates, rewrite="Again: {instruction}"), SETTINGS, rewritings=rewritings)
    rewrite(model, ["a"], templates, replace(SETTINGS, max_new_tokens=3), rewritings=rewritings)
    assert len(model.calls) == 3


def test_a_rewriting_repeats_its_instruction_and_sees_no_image(fake, templates):
    model = fake()
    rewrite(model, ["a", "b"], templates, SETTINGS)
    assert (model.calls[0].guesses, model.calls[0].images) == (("a", "b"), ())


def test_an_instruction_that_fails_fails_alone_and_is_tried_again(fake, templates):
    model, rewritings = fake(too_long="endless"), {}
    first, failed, again, last = rewrite(
        model, ["a", "endless", "endless", "b"], templates, SETTINGS, rewritings=rewritings
    )
    assert isinstance(failed, Failed)
    assert failed is again
    assert [first, last] == rewrite(fake(), ["a", "b"], templates, SETTINGS)
    rewrite(model, ["a", "endless"], templates, SETTINGS, rewritings=rewritings)
    assert model.calls[-1].prompts == (templates.rewrite_prompt("endless"),)
