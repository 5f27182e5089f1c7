"""Writes cider_golden.json: random caption sets with the scores of pycocoevalcap 1.2, which must be on the path.

    PYTHONPATH=<where pycocoevalcap is> python tests/tools/make_cider_golden.py

A set is {"captions": [...], "references": [[...]], "scores": [...], "mean": ...}; words stand apart by spaces.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from pycocoevalcap.cider.cider import Cider

NUM_SETS = 160
GOLDEN = Path(__file__).parents[1] / "metrics" / "cider_golden.json"


def caption(rng: random.Random, words: list[str], lengths: tuple[int, int]) -> str:
    return " ".join(rng.choices(words, k=rng.randint(*lengths)))


def garbled(rng: random.Random, words: list[str], text: str) -> str:
    return " ".join(word if rng.random() < 0.8 else rng.choice(words) for word in text.split())


def random_set(rng: random.Random) -> dict[str, object]:
    words = "abcdefghijklmnopqrstuvwxyz"[: rng.choice([2, 6, 26])]
    num_items = rng.randint(1, 6)
    references = [[caption(rng, [*words], (0, 12)) for _ in range(rng.randint(1, 5))] for _ in range(num_items)]
    references[0].append("a b")  # pycocoevalcap cannot score a set whose references are all empty
    captions = [garbled(rng, [*words], rng.choice(rng.choice(references))) for _ in references]
    mean, scores = Cider().compute_score(dict(enumerate(references)), {i: [one] for i, one in enumerate(captions)})
    return {"captions": captions, "references": references, "scores": list(map(float, scores)), "mean": float(mean)}


if __name__ == "__main__":
    rng = random.Random(1411_5726)
    sets = [json.dumps(random_set(rng)) for _ in range(NUM_SETS)]
    GOLDEN.write_text("[\n" + ",\n".join(sets) + "\n]\n")
