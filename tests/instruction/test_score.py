from __future__ import annotations

import math

import pytest

from vlinstruct.errors import UsageError
from vlinstruct.instruction import score
from vlinstruct.values import Failed, TokenScores


def test_ias_is_the_mean_over_the_instructions_tokens_and_its_end_in_nats(fake, templates):
    model = fake(ias={})
    model.scores = lambda *row: TokenScores(tokens=("what", "?", "</s>"), token_nll=(1.0, 2.0, 6.0))
    ((one,),) = score(model, [7], [["what?"]], templates)
    assert (one.text, one.ias, one.scores.tokens) == ("what?", 3.0, ("what", "?", "</s>"))


def test_the_judged_instruction_is_the_target_and_the_qformers_text(fake, templates):
    model = fake()
    score(model, [1, 2], [["a"], ["b"]], templates)
    (call,) = model.calls
    assert call.prompts == (templates.score_prompt(),) * 2
    assert call.reads == call.texts == ("a", "b")


def test_batch_equals_one_by_one(fake, templates):
    model, texts = fake(), ["what is it?", "x", "{instruction}"]
    batch = score(model, [3, 4, 5], [[text] for text in texts], templates)
    singles = [score(model, [3 + row], [[text]], templates)[0] for row, text in enumerate(texts)]
    assert batch == singles


def test_many_instructions_of_an_image_are_one_batch(fake, templates):
    model = fake()
    rows = score(model, [1, 2, 3], [["a", "b"], [], ["c"]], templates)
    (call,) = model.calls
    assert (call.images, call.texts) == ((1, 1, 3), ("a", "b", "c"))
    assert [[one.text for one in row] for row in rows] == [["a", "b"], [], ["c"]]


def test_equal_instructions_of_an_image_are_scored_once_but_not_those_of_two_images(fake, templates):
    model = fake()
    rows = score(model, [1, 2], [["a", "a"], ["a"]], templates)
    assert model.calls[0].images == (1, 2)
    assert rows[0][0] is rows[0][1]
    assert rows[0][0].ias != rows[1][0].ias


@pytest.mark.parametrize("nll", [(1.0, math.nan), (math.inf, 1.0), (math.inf, -math.inf), (-math.inf,), ()])
def test_a_score_that_is_not_finite_is_kept_as_such(fake, templates, nll):
    model = fake()
    model.scores = lambda *row: TokenScores(tokens=("a",) * len(nll), token_nll=nll)
    ((one,),) = score(model, [1], [["a"]], templates)
    assert math.isnan(one.ias)
    assert one.scores.token_nll == nll


def test_nothing_to_score_calls_no_model(fake, templates):
    model = fake()
    assert score(model, [], [], templates) == []
    assert score(model, [1], [[]], templates) == [[]]
    assert model.calls == []


def test_images_and_instructions_must_go_together(fake, templates):
    model = fake()
    with pytest.raises(UsageError, match="expected, got 2 for 1 images"):
        score(model, [1], [["a"], ["b"]], templates)
    with pytest.raises(UsageError, match="expected, got 1 for 2 images"):
        score(model, [1, 2], [["a", "b"]], templates)


def test_an_image_that_fails_fails_alone(fake, templates):
    model = fake(too_long="endless")
    first, failed, last = score(model, [1, 2, 3], [["a"], ["b", "endless", "c"], ["d", "e"]], templates)
    assert isinstance(failed, Failed)
    assert [first, last] == score(fake(), [1, 3], [["a"], ["d", "e"]], templates)
