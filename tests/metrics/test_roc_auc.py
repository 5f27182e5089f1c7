from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vlinstruct.errors import DataError, ScoreError
from vlinstruct.metrics.roc_auc import roc_auc

GOLDEN = json.loads(Path(__file__).with_name("roc_auc_golden.json").read_text())


def pairs_won(labels, scores):
    """The definition: over all pairs of a positive and a negative, 1 for the positive above, 1/2 for a tie."""
    positives, negatives = scores[labels == 1], scores[labels == 0]
    return np.mean([1.0 if p > n else 0.5 if p == n else 0.0 for p in positives for n in negatives])


def test_auc_equals_its_definition_on_random_cases():
    rng = np.random.default_rng(0)
    for _ in range(500):
        labels = np.append(rng.integers(0, 2, size=rng.integers(0, 40)), [0, 1])
        scores = np.round(labels * rng.random() + rng.normal(size=len(labels)), rng.choice([0, 1, 6]))
        assert roc_auc(labels, scores) == pytest.approx(pairs_won(labels, scores), abs=1e-12)


def test_auc_equals_scikit_learns():
    assert len(GOLDEN) >= 500
    ours = [roc_auc([int(label) for label in labels], scores) for labels, scores, _ in GOLDEN]
    assert ours == pytest.approx([auc for _, _, auc in GOLDEN], abs=1e-12)


def test_the_golden_cases_have_ties_few_items_and_lone_classes():
    assert sum(len(set(scores)) == 1 for _, scores, _ in GOLDEN) >= 10
    assert sum(len(set(scores)) < len(scores) for _, scores, _ in GOLDEN) >= 100
    assert sum(min(labels.count("0"), labels.count("1")) == 1 for labels, _, _ in GOLDEN) >= 100


@pytest.mark.parametrize(
    ("scores", "auc"), [([0, 0, 1, 1], 1.0), ([1, 1, 0, 0], 0.0), ([5, 5, 5, 5], 0.5), ([0, 1, 1, 2], 0.875)]
)
def test_hand_worked_cases(scores, auc):
    assert roc_auc([0, 0, 1, 1], scores) == auc


def test_only_the_order_of_the_scores_counts():
    labels, scores = [0, 1, 0, 1, 1], np.array([0.1, 0.4, 0.4, 0.2, 0.9])
    assert roc_auc(labels, scores) == roc_auc(labels, np.exp(10 * scores))


def test_turning_the_scores_round_turns_the_auc_round():
    labels, scores = [0, 1, 0, 1, 1], np.array([0.1, 0.4, 0.4, 0.2, 0.9])
    assert roc_auc(labels, -scores) == pytest.approx(1 - roc_auc(labels, scores))


@pytest.mark.parametrize("label", [0, 1, False, True])
def test_one_class_only_is_an_error(label):
    with pytest.raises(DataError) as caught:
        roc_auc([label] * 3, [0.1, 0.2, 0.3])
    assert caught.value.code == "one_class"
    message = "cannot compute ROC AUC (labels): all 3 items are of one class. Evaluate items of both classes"
    assert caught.value.message == message


@pytest.mark.parametrize("labels", [[0, 2], [1, -1], [0.5, 1]])
def test_a_label_is_0_or_1(labels):
    with pytest.raises(DataError, match="one is neither 0 nor 1"):
        roc_auc(labels, [0.1, 0.2])


@pytest.mark.parametrize("scores", [[0.1], [0.1, 0.2, 0.3], [[0.1, 0.2]]])
def test_labels_and_scores_must_go_together(scores):
    with pytest.raises(DataError, match=r"labels of shape \(2,\), scores of shape"):
        roc_auc([0, 1], scores)


@pytest.mark.parametrize("not_finite", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_an_error(not_finite):
    with pytest.raises(ScoreError, match="score 1 is not finite"):
        roc_auc([0, 1], [0.1, not_finite])
