from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from vlinstruct.errors import DataError
from vlinstruct.metrics.cider import cider

GOLDEN = json.loads(Path(__file__).with_name("cider_golden.json").read_text())
WORDS = tuple("abcdefghijklmnop")


def ngrams(tokens, order):
    return [tokens[start : start + order] for start in range(len(tokens) - order + 1)]


def dense_cider(captions, references):
    """The paper's formula, order by order, on dense vectors over all n-grams of the set."""
    scores = np.zeros(len(captions))
    for order in (1, 2, 3, 4):
        texts = [*captions, *(one for row in references for one in row)]
        places = {ngram: place for place, ngram in enumerate({n for text in texts for n in ngrams(text, order)})}

        def counts(text, order=order, places=places):
            return np.bincount([places[ngram] for ngram in ngrams(text, order)], minlength=len(places))

        in_item = [sum((counts(one) for one in row), np.zeros(len(places))) > 0 for row in references]
        idf = np.log(len(references) / np.maximum(sum(item.astype(int) for item in in_item), 1))
        for index, (caption, row) in enumerate(zip(captions, references, strict=True)):
            for reference in row:
                ours, theirs = counts(caption) * idf, counts(reference) * idf
                norm = np.linalg.norm(ours) * np.linalg.norm(theirs)
                cosine = np.minimum(ours, theirs) @ theirs / norm if norm else 0.0
                gap = len(ngrams(caption, 2)) - len(ngrams(reference, 2))
                scores[index] += 10 / 4 / len(row) * cosine * math.exp(-(gap**2) / 72)
    return scores


def random_set(rng):
    words = WORDS[: rng.choice([2, 5, 16])]

    def caption(shortest=0):
        return tuple(map(str, rng.choice(words, size=rng.integers(shortest, 12))))

    references = [[caption() for _ in range(rng.integers(1, 5))] for _ in range(rng.integers(1, 6))]
    captions = [row[0] if rng.random() < 0.3 else row[0][1:] + caption() for row in references]
    return captions, references


def test_scores_equal_the_dense_formula_on_random_sets():
    rng = np.random.default_rng(0)
    for _ in range(500):
        captions, references = random_set(rng)
        assert cider(captions, references).per_item == pytest.approx(dense_cider(captions, references), abs=1e-9)


@pytest.mark.parametrize("golden", GOLDEN)
def test_scores_equal_pycocoevalcaps(golden):
    references = [[tuple(one.split()) for one in row] for row in golden["references"]]
    scores = cider([tuple(one.split()) for one in golden["captions"]], references)
    assert scores.per_item == pytest.approx(golden["scores"], abs=1e-9)
    assert scores.mean == pytest.approx(golden["mean"], abs=1e-9)


def test_a_caption_equal_to_its_only_reference_scores_ten():
    rows = [("a", "b", "c", "d"), ("e", "f", "g", "h")]
    assert cider(rows, [[row] for row in rows]).per_item == pytest.approx((10.0, 10.0))


def test_repeating_a_word_does_not_pay():
    references = [[("a", "b", "c", "d", "e")], [("f",)]]
    honest, repeated = (
        cider([caption, ("f",)], references).per_item[0] for caption in (tuple("abcde"), tuple("aaaaa"))
    )
    assert repeated < honest / 10


def test_what_every_item_has_weighs_nothing():
    assert cider([("a", "x"), ("a", "y")], [[("a", "b")], [("a", "c")]]).per_item == (0.0, 0.0)


def test_the_order_of_the_references_does_not_count():
    first, second, third = ("a", "b", "c"), ("a", "d"), ("e", "f")
    captions = [("a", "b"), ("e",)]
    forth, back = (cider(captions, [row, [third]]).mean for row in ([first, second], [second, first]))
    assert forth == pytest.approx(back, abs=1e-12)


def test_an_empty_caption_scores_nothing():
    assert cider([(), ("b",)], [[("a",)], [("b",)]]).per_item[0] == 0.0


def test_an_item_without_reference_is_an_error():
    with pytest.raises(DataError) as caught:
        cider([("a",), ("b",)], [[("a",)], []])
    assert caught.value.message == (
        "cannot compute CIDEr (item 1): it has no reference. Give every item one reference at least"
    )


@pytest.mark.parametrize("captions", [[], [("a",)] * 2])
def test_captions_and_references_must_go_together(captions):
    with pytest.raises(DataError, match=rf"^cannot compute CIDEr \(captions\): {len(captions)} captions for 1 items"):
        cider(captions, [[("a",)]])


def test_no_items_are_an_error():
    with pytest.raises(DataError, match="0 captions for 0 items with references"):
        cider([], [])
