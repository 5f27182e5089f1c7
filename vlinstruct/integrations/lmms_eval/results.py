"""What a ranking task gets back from lmms-eval. No torch."""

from __future__ import annotations

import ast
from collections.abc import Sequence


def losses_of(results: Sequence[tuple[float, bool] | str]) -> list[float]:
    """Returns every option's mean loss, in nats per token.

    Args:
        results: per option its loss and whether it is greedy; a pair that lmms-eval 0.7.3 took from its cache
            (`--use_cache`) comes as text.

    >>> losses_of([(0.5, True), "[1.25, False]"])
    [0.5, 1.25]
    """
    pairs = [ast.literal_eval(one) if isinstance(one, str) else one for one in results]
    return [float(loss) for loss, _ in pairs]
