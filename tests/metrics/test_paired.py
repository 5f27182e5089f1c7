"""Two ways of answering the same items: the p-value is exact, and the intervals hold the truth as often as they say."""

from __future__ import annotations

import math
import random
from itertools import product

import numpy as np
import pytest

from vlinstruct.metrics.paired import (
    difference_interval,
    flipped_sums,
    score_interval,
    sign_flip_p_value,
    swapped_areas,
    two_sided_p_value,
)
from vlinstruct.metrics.roc_auc import roc_auc

NUM_TASKS = 600


def test_a_p_value_is_the_share_of_signs_that_do_as_well() -> None:
    differences = [0.3, -0.1, 1.0, 0.6, -0.6, 0.0]
    unequal = [difference for difference in differences if difference]
    sums = [sum(map(math.prod, zip(unequal, signs, strict=True))) for signs in product((1, -1), repeat=5)]
    expected = sum(total >= sum(unequal) - 1e-9 for total in sums) / 32
    assert sign_flip_p_value(differences) == expected


@pytest.mark.parametrize(("wins", "losses"), [(5, 0), (9, 2), (14, 4), (40, 21)])
def test_of_right_and_wrong_answers_it_is_mcnemars_exact_test(wins: int, losses: int) -> None:
    num = wins + losses
    expected = sum(math.comb(num, k) for k in range(wins, num + 1)) / 2**num
    assert sign_flip_p_value([1.0] * wins + [-1.0] * losses + [0.0] * 30) == pytest.approx(expected)


def test_of_many_items_a_sample_of_the_signs_is_enough_and_no_p_value_is_0() -> None:
    differences = [0.5 + 0.01 * place for place in range(12)] + [-0.3]
    exact = sign_flip_p_value([difference for difference in differences if difference > 0])
    assert 0 < sign_flip_p_value(differences) < 0.01
    assert exact == 1 / 2**12
    assert sign_flip_p_value(differences, seed=1) == sign_flip_p_value(differences, seed=1)
    assert sign_flip_p_value([difference / 10 for difference in [7.0, 3.0] * 20]) > 0


def test_what_is_no_better_has_a_small_p_value_no_more_often_than_it_says() -> None:
    luck = random.Random(0)
    p_values = [
        sign_flip_p_value([float(luck.choice((-1, 0, 0, 1))) for _ in range(30)], seed=task)
        for task in range(NUM_TASKS)
    ]
    for level in (1 / 60, 1 / 30, 0.1):
        share = sum(p_value <= level for p_value in p_values) / NUM_TASKS
        assert share <= level + 3 * math.sqrt(level * (1 - level) / NUM_TASKS)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("num_items", [20, 60])
def test_intervals_of_scores_hold_the_truth(share: float, num_items: int) -> None:
    luck = np.random.default_rng(0)
    held = [
        found.low <= share <= found.high
        for _ in range(NUM_TASKS)
        for found in [score_interval((luck.random(num_items) < share).astype(float), largest=1.0)]
    ]
    assert 0.9 <= np.mean(held) <= 0.995


def test_intervals_of_captions_scores_hold_the_truth() -> None:
    luck = np.random.default_rng(0)
    held = [
        found.low <= math.exp(0.32) <= found.high
        for _ in range(NUM_TASKS)
        for found in [score_interval(np.exp(0.8 * luck.standard_normal(40)), largest=None)]
    ]
    assert 0.9 <= np.mean(held) <= 0.99


@pytest.mark.parametrize(("better", "worse"), [(0.0, 0.0), (0.05, 0.05), (0.3, 0.1)])
def test_intervals_of_differences_hold_the_truth(better: float, worse: float) -> None:
    luck = np.random.default_rng(0)
    rows = luck.choice([1.0, -1.0, 0.0], p=[better, worse, 1 - better - worse], size=(NUM_TASKS, 40))
    held = [found.low <= better - worse <= found.high for found in map(_difference, rows)]
    assert np.mean(held) >= 0.9


def _difference(row: np.ndarray) -> object:
    return difference_interval(row, largest=1.0)


def test_an_interval_holds_its_value_lies_in_the_range_and_narrows_with_more_items() -> None:
    for largest in (1.0, None):
        for scores in ([0.0] * 5, [1.0] * 5, [1.0, 0.3, 0.9, 0.0, 0.6]):
            few, many = (score_interval(scores * times, largest=largest) for times in (3, 30))
            assert 0 <= few.low <= few.value <= few.high
            assert many.high - many.low <= few.high - few.low
            assert largest is None or few.high <= largest
    few, many = (difference_interval([1.0, 0.0, -1.0, 0.0, 1.0] * times, largest=1.0) for times in (3, 30))
    assert -1 <= few.low < many.low < many.value < many.high < few.high <= 1


def test_nothing_that_differs_is_no_proof_that_nothing_differs() -> None:
    for num_items in (12, 60):
        found = difference_interval([0.0] * num_items, largest=1.0)
        assert found.low < 0 < found.high
        assert score_interval([1.0] * num_items, largest=1.0).low < 1


def test_on_both_sides_a_p_value_does_not_depend_on_which_way_is_first() -> None:
    differences = [0.3, -0.1, 1.0, 0.6, -0.6, 0.0]
    unequal = [difference for difference in differences if difference]
    sums = [sum(map(math.prod, zip(unequal, signs, strict=True))) for signs in product((1, -1), repeat=5)]
    expected = sum(abs(total) >= abs(sum(unequal)) - 1e-9 for total in sums) / 32
    assert two_sided_p_value(differences) == expected == two_sided_p_value([-one for one in differences])


def test_areas_with_swapped_scores_are_those_of_their_ranks() -> None:
    luck = np.random.default_rng(0)
    labels, scores, others = luck.random(15) < 0.4, luck.integers(0, 9, 15) / 1.0, luck.random(15)
    found = swapped_areas(labels, scores, others, seed=0, num_draws=400)
    assert found[0] == pytest.approx(roc_auc(labels, scores) - roc_auc(labels, others))
    assert abs(found[1:].mean()) < 4 * found[1:].std() / 20
    assert not swapped_areas(labels, scores, 3 * scores, seed=0, num_draws=5).any()
    # Another unit is another scale of the same ranks, and the draws are the same.
    assert swapped_areas(labels, 10 * scores, others, seed=0, num_draws=400).tolist() == found.tolist()


def test_each_item_has_its_own_scores_or_the_other_ways() -> None:
    labels = np.array([True, False, True, False, False])
    ranks, other_ranks = np.array([5.0, 3, 2, 4, 1]), np.array([2.0, 5, 1, 3, 4])
    possible = {
        round(
            roc_auc(labels, np.where(flip, other_ranks, ranks)) - roc_auc(labels, np.where(flip, ranks, other_ranks)), 9
        )
        for flip in map(np.array, product((True, False), repeat=5))
    }
    found = swapped_areas(labels, ranks, other_ranks, seed=0, num_draws=500)
    assert set(found.round(9).tolist()) == possible


def test_sums_with_other_signs_are_as_large_as_their_differences_allow() -> None:
    found = flipped_sums(np.array([1.0, 0.0, 2.0]), seed=0, num_draws=200)
    assert found[0] == 3
    assert set(found.tolist()) == {3.0, 1.0, -1.0, -3.0}
