"""One bootstrap: paired by its seed, equal to a plain loop, and near what the normal distribution says of a mean."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vlinstruct.metrics.bootstrap import Interval, interval, resampled_rows


def test_intervals_equal_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    for seed in range(100):
        scores = rng.normal(size=rng.integers(1, 20))
        resampled, generator = [], np.random.default_rng(seed)
        for _ in range(30):
            rows = [int(row) for row in generator.integers(len(scores), size=len(scores))]
            resampled.append(sum(scores[row] for row in rows) / len(rows))
        low, high = np.quantile(resampled, [0.025, 0.975])
        found = interval(scores[resampled_rows(len(scores), seed, 30)].mean(axis=1))
        assert (found.value, found.low, found.high) == pytest.approx((scores.mean(), low, high), abs=1e-9)


def test_the_interval_of_a_mean_is_near_that_of_the_normal_distribution() -> None:
    scores = np.random.default_rng(1).normal(size=2_000)
    found = interval(scores[resampled_rows(len(scores), 0)].mean(axis=1))
    half = 1.96 * scores.std() / math.sqrt(len(scores))
    assert (found.low, found.high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.1 * half)


def test_a_constant_difference_on_the_same_rows_has_no_width() -> None:
    scores, rows = np.random.default_rng(1).random(100), resampled_rows(100, 3)
    found = interval((scores + 0.125)[rows].mean(axis=1) - scores[rows].mean(axis=1))
    assert (found.value, found.low, found.high) == pytest.approx((0.125, 0.125, 0.125))


def test_a_seed_gives_the_same_rows_and_another_seed_others() -> None:
    assert np.array_equal(resampled_rows(50, 3), resampled_rows(50, 3))
    assert not np.array_equal(resampled_rows(50, 3), resampled_rows(50, 4))


def test_resamples_without_a_value_are_left_out() -> None:
    assert interval(np.array([0.5, np.nan, 1.0, np.inf, 1.0])) == Interval(value=0.5, low=1.0, high=1.0)
    found = interval(np.array([0.5, np.nan]))
    assert found.value == 0.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)
