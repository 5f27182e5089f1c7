"""CIDEr of captions, as pycocoevalcap's `Cider` computes it.

In: tokenized captions and their references. Out: a score per item, 0 to 10; papers print the mean times 100.

What pycocoevalcap calls CIDEr is CIDEr-D of the paper (Vedantam et al. 2015, https://arxiv.org/abs/1411.5726):
n-grams of 1 to 4 words, clipped, under a Gaussian of the difference in length, sigma 6.

Legend: N items.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vlinstruct.errors import DataError
from vlinstruct.metrics.captions import Tokens

_ORDERS = range(1, 5)
_SIGMA = 6.0
MAX_CIDER = 10.0

Ngram = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CiderScores:
    """The CIDEr of a set of captions.

    Args:
        per_item: one score per item, 0 to 10. They hold the document frequencies of this set, so a bootstrap that draws
            items again keeps these scores, and with them those frequencies.
    """

    per_item: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the items, 0 to 10."""
        return math.fsum(self.per_item) / len(self.per_item)


@dataclass(frozen=True, kw_only=True)
class _Vector:
    """A caption as CIDEr compares it.

    Args:
        weights: tf-idf by n-gram; the counts are not divided by the caption's length, as in pycocoevalcap.
        norms: of the weights of each order.
        length: in words.
    """

    weights: dict[Ngram, float]
    norms: tuple[float, ...]
    length: int


def cider(captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> CiderScores:
    """Scores captions by the n-grams they share with their references, the rarer in the set the more.

    The document frequency of an n-gram is the number of items with it in a reference. One that every item has weighs
    nothing, and so a set of one item scores 0.

    Args:
        captions: one tokenized caption per item, N; it may be empty and scores 0 then.
        references: the tokenized references of each item, N, at least one each.

    Returns:
        The scores, in the order given.

    Raises:
        DataError: no items, not as many captions as rows of references, or an item without reference.

    >>> cats, dogs = ("two", "cats", "sleep", "here"), ("a", "dog", "runs", "home")
    >>> scores = cider([cats, cats], [[cats], [dogs]])
    >>> [round(score, 6) for score in scores.per_item], round(scores.mean, 6)
    ([10.0, 0.0], 5.0)
    """
    if len(captions) != len(references) or not captions:
        why = f"{len(captions)} captions for {len(references)} items with references"
        raise DataError.at("cannot compute CIDEr", "captions", why, "Give one caption per item, one at least")
    for index, row in enumerate(references):
        if not row:
            advice = "Give every item one reference at least"
            raise DataError.at("cannot compute CIDEr", f"item {index}", "it has no reference", advice)
    # An item counts once however many of its references have the n-gram: a phrase that five people wrote of one picture
    # is as rare in the set as one that a single person wrote.
    frequency = Counter(ngram for row in references for ngram in {ngram for tokens in row for ngram in _ngrams(tokens)})
    log_items = math.log(len(references))

    def idf(ngram: Ngram) -> float:
        # An n-gram of the caption that no reference has gets the weight of one that a single item has (pycocoevalcap).
        return log_items - math.log(frequency.get(ngram, 1))

    scores = []
    for caption, row in zip(captions, references, strict=True):
        vector = _vector(caption, idf)
        similarities = [_similarity(vector, _vector(reference, idf)) for reference in row]
        scores.append(MAX_CIDER * math.fsum(similarities) / len(similarities))
    return CiderScores(per_item=tuple(scores))


def _ngrams(tokens: Tokens) -> Iterable[Ngram]:
    return (tokens[start : start + order] for order in _ORDERS for start in range(len(tokens) - order + 1))


def _vector(tokens: Tokens, idf: Callable[[Ngram], float]) -> _Vector:
    weights = {ngram: count * idf(ngram) for ngram, count in Counter(_ngrams(tokens)).items()}
    squares = [0.0 for _ in _ORDERS]
    for ngram, weight in weights.items():
        squares[len(ngram) - 1] += weight**2
    return _Vector(weights=weights, norms=tuple(map(math.sqrt, squares)), length=len(tokens))


def _similarity(caption: _Vector, reference: _Vector) -> float:
    """Returns the mean over the orders of the cosine, 0 to 1."""
    products = [0.0 for _ in _ORDERS]
    for ngram, weight in caption.weights.items():
        other = reference.weights.get(ngram, 0.0)
        # Clipped: repeating a phrase of the reference gains nothing. The norms are those of the unclipped vectors.
        products[len(ngram) - 1] += min(weight, other) * other
    norms = [ours * theirs for ours, theirs in zip(caption.norms, reference.norms, strict=True)]
    # An order without any n-gram, of captions shorter than it, has the norm 0 and counts as 0 in the mean.
    cosines = [product / norm for product, norm in zip(products, norms, strict=True) if norm]
    penalty = math.exp(-((caption.length - reference.length) ** 2) / (2 * _SIGMA**2))
    return penalty * math.fsum(cosines) / len(_ORDERS)
