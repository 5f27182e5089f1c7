from __future__ import annotations

import pytest

from vlinstruct.errors import ScoreError, UsageError
from vlinstruct.instruction import Draft, compare
from vlinstruct.settings import OptimizationSettings

CONFIG = OptimizationSettings()


def prompt_of(model, templates, *candidates):
    compare(model, model.encode([1]), [candidates], templates, CONFIG)
    return model.calls[-1].prompts[0]


def test_the_lower_ias_stands_last_in_the_prompt(fake, templates, scored):
    prompt = prompt_of(fake(), templates, scored("good", 1.0), scored("bad", 2.0))
    assert prompt == templates.compare_prompt([scored("bad", 2.0), scored("good", 1.0)])


def test_swapping_the_scores_swaps_the_order(fake, templates, scored):
    prompt = prompt_of(fake(), templates, scored("aaa", 1.0), scored("bbb", 2.0))
    swapped = prompt_of(fake(), templates, scored("aaa", 2.0), scored("bbb", 1.0))
    assert prompt.index("bbb") < prompt.index("aaa")
    assert swapped.index("aaa") < swapped.index("bbb")


def test_ties_keep_the_initial_first_in_the_prompt(fake, templates, scored):
    prompt = prompt_of(fake(), templates, scored("aaa", 1.0), scored("bbb", 1.0))
    assert prompt.index("aaa") < prompt.index("bbb")


def test_the_qformer_reads_the_initial_instruction(fake, templates, scored):
    model = fake()
    rows = [[scored("initial", 2.0), scored("b", 1.0)], [scored("first", 1.0), scored("d", 2.0)]]
    compare(model, model.encode([4, 5]), rows, templates, CONFIG)
    (call,) = model.calls
    assert (call.images, call.qformer_texts) == ((4, 5), ("initial", "first"))


def test_a_candidate_without_a_finite_score_is_left_out(fake, templates, scored, not_finite):
    prompt = prompt_of(fake(), templates, scored("initial", not_finite), scored("rewritten", 1.0))
    assert prompt == templates.compare_prompt([scored("rewritten", 1.0)])


def test_nothing_finite_is_an_error(fake, templates, scored, not_finite):
    model = fake()
    with pytest.raises(ScoreError):
        compare(model, model.encode([1]), [[scored("a", not_finite), scored("b", not_finite)]], templates, CONFIG)
    assert model.calls == []


@pytest.mark.parametrize(("ias", "text"), [((1.0, 2.0), "aaa"), ((2.0, 1.0), "bbb"), ((1.0, 1.0), "aaa")])
def test_an_empty_output_falls_back_to_the_better_one_with_a_notice(fake, templates, scored, ias, text):
    model = fake(look=lambda *row: " \n")
    notice = "the comparison brought forth nothing, so the better of the compared instructions stands in for it"
    candidates = [[scored("aaa", ias[0]), scored("bbb", ias[1])]]
    drafts = compare(model, model.encode([1]), candidates, templates, CONFIG)
    assert drafts == [Draft(text=text, notice=notice)]


def test_an_output_is_stripped(fake, templates, scored):
    model = fake(look=lambda *row: "\n What is it? ")
    assert compare(model, model.encode([1]), [[scored("a", 1.0)]], templates, CONFIG) == [Draft(text="What is it?")]


def test_what_a_user_types_reaches_the_model_literally(fake, templates, scored, hostile):
    prompt = prompt_of(fake(), templates, scored(hostile, 2.0), scored("b", 1.0))
    assert f"Instruction: {hostile} Score: 2.0000." in prompt


def test_images_and_candidates_must_go_together(fake, templates, scored):
    model = fake()
    with pytest.raises(UsageError, match="got 1 for 2 images"):
        compare(model, model.encode([1, 2]), [[scored("a", 1.0)]], templates, CONFIG)
