"""Scoring instructions (eq. 3), and ranking what is scored."""

from __future__ import annotations

import math
from itertools import permutations

import pytest

from vlinstruct.errors import ScoreError, UsageError
from vlinstruct.instruction import rank, score
from vlinstruct.instruction.score import best
from vlinstruct.values import Failed, TokenScores


def test_ias_is_the_mean_over_the_instructions_tokens_and_its_end_in_nats(fake, templates):
    model = fake(ias={})
    model.scores = lambda *row: TokenScores(tokens=("what", "?", "</s>"), token_nll=(1.0, 2.0, 6.0))
    ((scored,),) = score(model, [7], [["what?"]], templates)
    assert (scored.text, scored.ias, scored.scores.tokens) == ("what?", 3.0, ("what", "?", "</s>"))


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
    assert [[scored.text for scored in row] for row in rows] == [["a", "b"], [], ["c"]]


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
    ((scored,),) = score(model, [1], [["a"]], templates)
    assert math.isnan(scored.ias)
    assert scored.scores.token_nll == nll


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


def texts(candidates):
    return [candidate.text for candidate in candidates]


def test_the_lowest_ias_stands_last_whatever_the_order(scored):
    candidates = [scored("worst", 3.0), scored("middle", 2.0), scored("best", 0.5)]
    assert all(texts(rank(order)) == ["worst", "middle", "best"] for order in permutations(candidates))


def test_ties_keep_the_initial_first(scored):
    assert texts(rank([scored("initial", 1.0), scored("rewritten", 1.0)])) == ["initial", "rewritten"]


def test_a_score_that_is_not_finite_ranks_worst(scored, not_finite):
    broken, good = scored("broken", not_finite), scored("good", 9.0)
    assert texts(rank([broken, good])) == texts(rank([good, broken])) == ["broken", "good"]


def test_the_best_is_the_lowest_finite_and_the_first_of_equals(scored, not_finite):
    assert best([scored("broken", not_finite), scored("a", 2.0), scored("b", 1.0), scored("c", 1.0)]).text == "b"


def test_nothing_finite_has_no_best(scored, not_finite):
    with pytest.raises(ScoreError, match="gives no usable instruction a finite IAS, so the initial one stays"):
        best([scored("broken", not_finite)])
