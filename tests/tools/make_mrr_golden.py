"""Writes mrr_golden.json: random scores with scikit-learn 1.9's label_ranking_average_precision_score.

    python tests/tools/make_mrr_golden.py

With one right candidate that average precision is the reciprocal of its rank. scikit-learn puts it behind all that
score the same; we keep the order offered, so that the two agree where the right one is offered last of its equals.
A case is [nll, target, reciprocal rank] and of that kind; half of them have ties.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from sklearn.metrics import label_ranking_average_precision_score

NUM_CASES = 600
GOLDEN = Path(__file__).parents[1] / "metrics" / "mrr_golden.json"


def random_case(rng: random.Random) -> list[object]:
    num_candidates = rng.choice([2, 3, 5, 20, 40])
    decimals = rng.choice([0, 1, 3, 5])
    nll = [round(rng.expovariate(1), decimals) for _ in range(num_candidates)]
    drawn = nll[rng.randrange(num_candidates)]
    target = max(index for index, one in enumerate(nll) if one == drawn)
    is_right = [index == target for index in range(num_candidates)]
    score = label_ranking_average_precision_score([is_right], [[-one for one in nll]])
    return [nll, target, float(score)]


if __name__ == "__main__":
    rng = random.Random(2017)
    cases = [json.dumps(random_case(rng)) for _ in range(NUM_CASES)]
    GOLDEN.write_text("[\n" + ",\n".join(cases) + "\n]\n")
