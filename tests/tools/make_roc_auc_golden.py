"""Writes roc_auc_golden.json: random labels and scores with scikit-learn 1.9's roc_auc_score.

    python tests/tools/make_roc_auc_golden.py

A case is [labels, scores, AUC]; labels are a text of 0 and 1. There are few items and many, classes of one item, and
scores that are all different, tie often, or are all the same.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from sklearn.metrics import roc_auc_score

NUM_CASES = 600
GOLDEN = Path(__file__).parents[1] / "metrics" / "roc_auc_golden.json"


def random_case(rng: random.Random) -> list[object]:
    num_items = rng.choice([2, 3, 5, 10, 25, 60])
    share = rng.choice([0.0, 0.05, 0.5, 0.5, 0.95, 1.0])
    labels = [int(rng.random() < share) for _ in range(num_items)]
    first, second = rng.sample(range(num_items), k=2)
    labels[first], labels[second] = 0, 1
    decimals, scale = rng.choice([(0, 0.1), (0, 1), (1, 1), (6, 1)])
    shift = rng.uniform(-1, 2)
    scores = [round(scale * rng.gauss(shift * label, 1), decimals) + 0.0 for label in labels]
    return ["".join(map(str, labels)), scores, float(roc_auc_score(labels, scores))]


if __name__ == "__main__":
    rng = random.Random(2013)
    cases = [json.dumps(random_case(rng)) for _ in range(NUM_CASES)]
    GOLDEN.write_text("[\n" + ",\n".join(cases) + "\n]\n")
