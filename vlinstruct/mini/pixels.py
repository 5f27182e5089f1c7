"""Pixel values as mini's vision tower takes them."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from vlinstruct.mini.transfer import on_device

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def normalised(pixels: Tensor) -> Tensor:
    """(P, 3, H, W) of 0 to 255 -> pixel_values with CLIP's mean and standard deviation."""
    mean, std = (
        on_device(np.array(values, np.float32), pixels.device).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD)
    )
    return (pixels.float() / 255 - mean) / std
