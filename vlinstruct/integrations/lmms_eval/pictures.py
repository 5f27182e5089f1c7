"""The picture of a row that `prepare.py` wrote. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from vlinstruct.media.images import load_image


def doc_to_visual(doc: Mapping[str, Any]) -> list[Image.Image]:
    """Returns the document's picture, in the list that lmms-eval wants.

    Raises:
        ImageError: it cannot be read.
    """
    return [load_image(doc["image"]).image]
