"""Pictures to pixel values, as transformers' BlipImageProcessor does it with PIL.

Legend: B images, S the side of the model's input in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlinstruct.errors import CheckpointError

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class ImageProcessor:
    """Squeezes a picture to a square and normalises it; nothing is cropped.

    Args:
        image_size: S, in pixels.
        image_mean: subtracted per channel, after scaling to 0..1.
        image_std: divides per channel.
        resample: PIL's filter; 3 is bicubic.
    """

    image_size: int
    image_mean: tuple[float, ...] = _CLIP_MEAN
    image_std: tuple[float, ...] = _CLIP_STD
    resample: int = Image.Resampling.BICUBIC

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], image_size: int) -> Self:
        """Reads a transformers `preprocessor_config.json`; the vision tower's input size has the last word."""
        return cls(
            image_size=image_size,
            image_mean=tuple(values.get("image_mean") or _CLIP_MEAN),
            image_std=tuple(values.get("image_std") or _CLIP_STD),
            resample=int(values.get("resample", Image.Resampling.BICUBIC)),
        )

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """Returns pixel_values, (B, 3, S, S), float32.

        Raises:
            CheckpointError: the normalisation is not finite (a zero in `image_std`, say).
        """
        size = (self.image_size, self.image_size)
        resized = [np.asarray(image.convert("RGB").resize(size, Image.Resampling(self.resample))) for image in images]
        # PIL resizes, not torch: the two filters differ, and transformers' answers are the measure.
        pixels = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.image_mean, self.image_std))
        pixel_values = (pixels - mean) / std
        # NaN pixels give no error further on: the model would answer something.
        if not bool(torch.isfinite(pixel_values).all()):
            message = "preprocessing produced values that are not finite: check image_std in preprocessor_config.json."
            raise CheckpointError(message, code="non_finite_pixels")
        return pixel_values
