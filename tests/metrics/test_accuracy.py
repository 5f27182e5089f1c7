"""An answer is right by its text, once normalized, or by being ranked first."""

from __future__ import annotations

import pytest

from vlinstruct.errors import ScoreError
from vlinstruct.metrics.accuracy import is_exact_match, is_ranked_first, normalized


@pytest.mark.parametrize(
    "prediction", ["yes", "Yes", " YES ", "yes.", "Yes!\n", "yes . ", "yes...", "yes.\u00a0", "yes\u00a0.", "\tyes;"]
)
def test_space_case_and_final_punctuation_do_not_count(prediction):
    assert is_exact_match(prediction, "yes")
    assert is_exact_match("yes", prediction)


@pytest.mark.parametrize("prediction", ["the dog", "dogs", "do g", "do.g", ".dog", "dog)", "", "1"])
def test_anything_else_counts(prediction):
    assert not is_exact_match(prediction, "dog")


@pytest.mark.parametrize("answer", ["", ".", " Yes. ", "a. b. ", "\u00a0x\u00a0", "Ünï!?"])
def test_normalizing_twice_changes_nothing(answer):
    assert normalized(normalized(answer)) == normalized(answer)


@pytest.mark.parametrize(("nll", "first"), [([0.5, 1.0, 2.0], 0), ([2.0, 1.0, 1.5], 1), ([1.0, 0.0, 0.0], 1)])
def test_only_the_lowest_and_of_equals_the_first_is_ranked_first(nll, first):
    assert [is_ranked_first(nll, target) for target in range(3)] == [target == first for target in range(3)]


def test_a_score_that_is_not_finite_is_no_rank():
    with pytest.raises(ScoreError):
        is_ranked_first([1.0, float("nan")], 0)
