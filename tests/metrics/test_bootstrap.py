from __future__ import annotations

import numpy as np
import pytest

from vlinstruct.errors import DataError, ScoreError
from vlinstruct.metrics import bootstrap
from vlinstruct.metrics.bootstrap import (
    Interval,
    mean_difference_interval,
    mean_interval,
    statistic_interval,
)
from vlinstruct.metrics.roc_auc import roc_auc


def seeded(seed=0):
    return np.random.default_rng(seed)


def plain_interval(statistic, columns, seed, num_resamples):
    """One resample at a time, item by item."""
    generator, num_items, values = seeded(seed), len(columns[0]), []
    for _ in range(num_resamples):
        rows = [int(row) for row in generator.integers(num_items, size=num_items)]
        values.append(statistic(*([column[row] for row in rows] for column in columns)))
    low, high = np.quantile(values, [0.025, 0.975])
    return [statistic(*columns), low, high]


def numbers(interval):
    return [interval.value, interval.low, interval.high]


def test_intervals_equal_those_of_a_plain_loop_on_random_cases():
    rng = seeded(1)
    for seed in range(500):
        ours, theirs = rng.normal(size=(2, rng.integers(1, 20))).tolist()
        interval = mean_difference_interval(ours, theirs, generator=seeded(seed), num_resamples=30)
        plain = plain_interval(lambda a, b: sum(a) / len(a) - sum(b) / len(b), [ours, theirs], seed, 30)
        assert numbers(interval) == pytest.approx(plain, abs=1e-9)


def test_any_statistic_is_resampled_as_the_mean_is():
    scores = seeded(1).random(50)
    mean = mean_interval(scores, generator=seeded())
    assert numbers(statistic_interval(np.mean, scores, generator=seeded())) == pytest.approx(numbers(mean), abs=1e-12)


def test_drawing_few_at_a_time_changes_nothing(monkeypatch):
    scores = seeded(1).random(50)
    at_once = mean_interval(scores, generator=seeded())
    monkeypatch.setattr(bootstrap, "_MAX_INDICES_AT_ONCE", 151)
    assert mean_interval(scores, generator=seeded()) == at_once


def test_the_interval_of_a_mean_is_near_that_of_the_normal_distribution():
    scores = seeded(1).normal(size=2_000)
    interval = mean_interval(scores, generator=seeded())
    half = 1.96 * scores.std() / np.sqrt(len(scores))
    assert interval.value == pytest.approx(scores.mean())
    assert (interval.low, interval.high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.1 * half)


def test_models_are_compared_on_the_same_items():
    baseline = seeded(1).random(100)
    interval = mean_difference_interval(baseline + 0.125, baseline, generator=seeded())
    assert numbers(interval) == pytest.approx([0.125] * 3, abs=1e-12)


def test_all_arrays_of_a_statistic_take_the_same_rows():
    seen = []

    def statistic(first, second):
        seen.append(bool((first * 2 == second[:, 1]).all()))
        return 0.0

    first = np.arange(20)
    second = np.stack([first, first * 2], axis=1)
    assert statistic_interval(statistic, first, second, generator=seeded()) == Interval(value=0.0, low=0.0, high=0.0)
    assert seen == [True] * (1 + bootstrap.NUM_RESAMPLES)


def test_the_difference_of_two_aucs_has_an_interval():
    rng = seeded(2)
    labels = np.arange(200) % 2
    good, bad = labels + rng.normal(size=200), rng.normal(size=200)
    interval = statistic_interval(
        lambda marks, ours, theirs: roc_auc(marks, ours) - roc_auc(marks, theirs), labels, good, bad, generator=seeded()
    )
    assert 0 < interval.low < interval.value < interval.high < 1
    assert interval.value == roc_auc(labels, good) - roc_auc(labels, bad)


def test_a_resample_without_auc_is_left_out():
    labels, scores = [0, 0, 0, 1, 1, 1], [1, 2, 4, 3, 5, 6]
    interval = statistic_interval(roc_auc, labels, scores, generator=seeded())
    assert 0 <= interval.low < interval.value < interval.high <= 1


def test_a_statistic_that_most_resamples_lack_has_no_interval():
    def all_apart(items):
        if len(set(items)) < len(items):
            raise DataError("items repeat")
        return 1.0

    with pytest.raises(DataError, match=r"the metric exists on \d+ of 2000 resamples\. Evaluate more items"):
        statistic_interval(all_apart, [1, 2, 3, 4], generator=seeded())


def test_a_seed_gives_the_same_interval_and_another_seed_another():
    scores = seeded(1).random(50)
    first, again, other = (mean_interval(scores, generator=seeded(seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_one_item_has_no_width():
    assert mean_interval([0.25], generator=seeded()) == Interval(value=0.25, low=0.25, high=0.25)


def test_arrays_of_another_length_are_an_error():
    with pytest.raises(DataError) as caught:
        mean_difference_interval([1.0, 2.0], [1.0], generator=seeded())
    assert caught.value.message == (
        "cannot compute an interval (items): arrays of 2 and 1 items. Give every array the same items, one at least"
    )


def test_no_items_are_an_error():
    with pytest.raises(DataError, match="arrays of 0 items"):
        mean_interval([], generator=seeded())


def test_no_arrays_are_an_error():
    with pytest.raises(DataError, match="arrays of no items"):
        statistic_interval(np.mean, generator=seeded())


def test_what_the_statistic_refuses_on_the_items_themselves_is_the_users_error():
    with pytest.raises(DataError, match="all 2 items are of one class"):
        statistic_interval(roc_auc, [1, 1], [0.1, 0.2], generator=seeded())


@pytest.mark.parametrize("not_finite", [np.nan, np.inf])
def test_a_score_that_is_not_finite_is_an_error(not_finite):
    with pytest.raises(ScoreError, match=r"^cannot compute an interval \(item 1\): its score is not finite\."):
        mean_interval([0.0, not_finite], generator=seeded())
