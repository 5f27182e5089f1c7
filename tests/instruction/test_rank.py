from __future__ import annotations

from itertools import permutations

import pytest

from vlinstruct.errors import ScoreError
from vlinstruct.instruction import rank
from vlinstruct.instruction.rank import best


def texts(candidates):
    return [one.text for one in candidates]


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
