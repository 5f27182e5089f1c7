from __future__ import annotations

import pytest

from vlinstruct.errors import ScoreError, UsageError
from vlinstruct.instruction import Draft, compare
from vlinstruct.settings import OptimizationSettings
from vlinstruct.values import Failed

SETTINGS = OptimizationSettings()


def prompt_of(model, templates, *candidates):
    compare(model, [1], [candidates], templates, SETTINGS)
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
    compare(model, [4, 5], rows, templates, SETTINGS)
    (call,) = model.calls
    assert (call.images, call.reads) == ((4, 5), ("initial", "first"))


def test_a_candidate_without_a_finite_score_is_left_out(fake, templates, scored, not_finite):
    prompt = prompt_of(fake(), templates, scored("initial", not_finite), scored("rewritten", 1.0))
    assert prompt == templates.compare_prompt([scored("rewritten", 1.0)])


def test_nothing_finite_is_an_error(fake, templates, scored, not_finite):
    model = fake()
    with pytest.raises(ScoreError):
        compare(model, [1], [[scored("a", not_finite), scored("b", not_finite)]], templates, SETTINGS)
    assert model.calls == []


@pytest.mark.parametrize(("ias", "text"), [((1.0, 2.0), "aaa"), ((2.0, 1.0), "bbb"), ((1.0, 1.0), "aaa")])
def test_an_empty_output_falls_back_to_the_better_one_with_a_notice(fake, templates, scored, ias, text):
    model = fake(look=lambda *row: " \n")
    notice = "the comparison returned nothing: the better of the compared instructions is used instead"
    candidates = [[scored("aaa", ias[0]), scored("bbb", ias[1])]]
    drafts = compare(model, [1], candidates, templates, SETTINGS)
    assert drafts == [Draft(text=text, notice=notice, certainty=1.0)]


def test_an_output_is_stripped(fake, templates, scored):
    model = fake(look=lambda *row: "\n What is it? ")
    assert compare(model, [1], [[scored("a", 1.0)]], templates, SETTINGS) == [Draft(text="What is it?", certainty=1.0)]


def test_what_a_user_types_reaches_the_model_literally(fake, templates, scored, hostile):
    prompt = prompt_of(fake(), templates, scored(hostile, 2.0), scored("b", 1.0))
    assert f"Instruction: {hostile} Score: 2.0000." in prompt


def test_images_and_candidates_must_go_together(fake, templates, scored):
    model = fake()
    with pytest.raises(UsageError, match="got 1 for 2 images"):
        compare(model, [1, 2], [[scored("a", 1.0)]], templates, SETTINGS)


def test_the_winner_is_the_guess_and_an_image_that_fails_fails_alone(fake, templates, scored):
    model = fake(too_long="endless")
    rows = [[scored("a", 2.0), scored("b", 1.0)], [scored("endless", 1.0)], [scored("c", 1.0), scored("d", 2.0)]]
    first, failed, last = compare(model, [1, 2, 3], rows, templates, SETTINGS)
    assert model.calls[0].guesses == ("b", "endless", "c")
    assert isinstance(failed, Failed)
    assert [first, last] == compare(model, [1, 3], rows[::2], templates, SETTINGS)


def test_nothing_to_compare_calls_no_model(fake, templates):
    model = fake()
    assert compare(model, [], [], templates, SETTINGS) == []
    assert model.calls == []
