"""What our tasks share: the picture of a row that `prepare` wrote, and the losses of a ranking. No torch."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from vlinstruct.media.images import read_image


def doc_to_visual(doc: Mapping[str, Any]) -> list[Image.Image]:
    """Returns the document's picture, in the list that lmms-eval wants.

    Raises:
        ImageError: it cannot be read.
    """
    return [read_image(doc["image"])]


def losses_of(results: Sequence[tuple[float, bool] | str]) -> list[float]:
    """Returns every option's mean loss, in nats per token.

    Args:
        results: per option its loss and whether it is greedy; a pair that lmms-eval 0.7.3 took from its cache
            (`--use_cache`) comes as text.

    >>> losses_of([(0.5, True), "[1.25, False]"])
    [0.5, 1.25]
    """
    # literal_eval reads Python's literals and runs nothing: a cache is a file that anybody may have written.
    pairs = [ast.literal_eval(result) if isinstance(result, str) else result for result in results]
    return [float(loss) for loss, _ in pairs]
