"""Where the language model's encoder should look to compare two scores (`encoder_attention.py`).

The first digit of each score looks at the other's, so that it can tell which is lower; a layer later every word of an
instruction looks at its own score, and knows whether it stands in the better one.

Legend: C context positions (queries, then prompt).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlinstruct.mini.encoder_attention import GUIDED_LAYERS, Looks


def comparing_looks(length: int, spans: Sequence[slice], digits: Sequence[int]) -> Looks:
    """Returns (2, C, C): what each position should attend to, in the first and in the second guided layer.

    Args:
        length: C.
        spans: of the two instructions, their scores included.
        digits: positions of their scores' first digits.

    >>> looks = comparing_looks(6, [slice(0, 3), slice(3, 6)], [2, 5])
    >>> np.argwhere(looks[0]).tolist(), looks[1].argmax(axis=1).tolist()
    ([[2, 5], [5, 2]], [2, 2, 2, 5, 5, 5])
    """
    looks = np.zeros((len(GUIDED_LAYERS), length, length), np.float32)
    for own, other in ((0, 1), (1, 0)):
        looks[0, digits[own], digits[other]] = 1
        looks[1, spans[own], digits[own]] = 1
    return looks
