from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from vlinstruct.errors import DataError, ScoreError
from vlinstruct.metrics.accuracy import mean_reciprocal_rank, target_rank

GOLDEN = json.loads(Path(__file__).with_name("mrr_golden.json").read_text())


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_ranks_equal_the_places_in_a_stable_sort_as_the_starter_kit_takes_them(decimals):
    """The kit sorts descending by score: here, by the negative of the negative log-likelihood."""
    generator = torch.Generator().manual_seed(0)
    nll = torch.randn(200, 100, generator=generator, dtype=torch.float64).round(decimals=decimals)
    targets = torch.randint(100, (200,), generator=generator)
    ranked = torch.sort(-nll, dim=1, descending=True, stable=True).indices
    expected = [int((row == target).nonzero()) + 1 for row, target in zip(ranked, targets, strict=True)]
    rows = zip(nll.tolist(), targets.tolist(), strict=True)
    assert [target_rank(row, target) for row, target in rows] == expected


def test_reciprocal_ranks_equal_scikit_learns():
    """On cases where its convention for ties, behind all equals, gives what ours gives."""
    assert len(GOLDEN) >= 500
    ranks = [target_rank(nll, target) for nll, target, _ in GOLDEN]
    assert [1 / rank for rank in ranks] == pytest.approx([reciprocal for _, _, reciprocal in GOLDEN], abs=1e-12)
    mean = sum(reciprocal for _, _, reciprocal in GOLDEN) / len(GOLDEN)
    assert mean_reciprocal_rank(ranks) == pytest.approx(mean, abs=1e-12)


def test_the_golden_cases_have_ties_with_the_right_candidate():
    assert sum(nll.count(nll[target]) > 1 for nll, target, _ in GOLDEN) >= 100


def test_the_lowest_score_ranks_first():
    assert [target_rank([2.0, 0.5, 1.0], target) for target in range(3)] == [3, 1, 2]


def test_of_equal_candidates_the_one_offered_first_ranks_first():
    assert [target_rank([1.0, 0.0, 1.0, 1.0], target) for target in range(4)] == [2, 1, 3, 4]


def test_the_ranks_of_all_candidates_are_a_permutation():
    nll = [1.0, 1.0, 0.0, 2.0, 0.0]
    assert sorted(target_rank(nll, target) for target in range(5)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("ranks", "mean"), [([1], 1.0), ([1, 2], 0.75), ([2, 3, 6], 1 / 3), ([100] * 7, 0.01), ([1, 10, 100], 0.37)]
)
def test_the_mean_is_that_of_the_reciprocals(ranks, mean):
    assert mean_reciprocal_rank(ranks) == pytest.approx(mean, abs=1e-15)


@pytest.mark.parametrize(("ranks", "why"), [([], "there are no ranks"), ([1, 0], "a rank is 0")])
def test_ranks_start_at_one(ranks, why):
    with pytest.raises(DataError) as caught:
        mean_reciprocal_rank(ranks)
    assert caught.value.message == (
        f"cannot compute the mean reciprocal rank (ranks): {why}. Give one rank per item, 1 for the best candidate"
    )


@pytest.mark.parametrize("target", [-1, 2])
def test_the_target_is_one_of_the_candidates(target):
    with pytest.raises(DataError, match=rf"^cannot rank candidates \(target {target}\): there are 2 candidates\."):
        target_rank([1.0, 2.0], target)


@pytest.mark.parametrize("not_finite", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_an_error(not_finite):
    with pytest.raises(ScoreError, match=r"^cannot rank candidates \(candidate 1\): its score is (nan|-?inf)\."):
        target_rank([1.0, not_finite], 0)
