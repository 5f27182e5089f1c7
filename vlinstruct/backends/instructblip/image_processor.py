"""Pictures to pixel values, as transformers' BlipImageProcessor does it with PIL.

Legend: B images, S the side of the model's input in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlinstruct.backends.instructblip.config_reading import as_mapping, is_number, refuse
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.errors import CheckpointError, shortened
from vlinstruct.files import read_json_object

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_EIGHT_BITS = 1 / 255
# Named in a file, but nothing is computed with them: who made it, how its result is wrapped, where it ran.
_WITHOUT_EFFECT = (
    "_processor_class",
    "crop_size",  # of a crop, which is refused
    "_valid_processor_keys",
    "data_format",
    "device",
    "disable_grouping",
    "feature_extractor_type",
    "pad_size",  # of a padding, which is refused
    "input_data_format",
    "processor_class",
    "return_tensors",
)
# Steps that have to be taken, or must not be.
_NEEDED = {
    "do_convert_rgb": True,
    "do_resize": True,
    "default_to_square": True,
    "do_center_crop": False,
    "do_pad": False,
}
_TYPES = ("BlipImageProcessor", "BlipImageProcessorFast", "BlipImageProcessorPil", "BlipFeatureExtractor")


@dataclass(frozen=True, kw_only=True)
class ImageProcessor:
    """Squeezes a picture to a square and normalises it.

    Args:
        image_size: S, in pixels.
        rescale_factor: multiplies the pixels' 0 to 255; 1 where they are not rescaled.
        image_mean: subtracted per channel after that.
        image_std: divides per channel.
        resample: PIL's filter; 3 is bicubic.
    """

    image_size: int
    rescale_factor: float = _EIGHT_BITS
    image_mean: tuple[float, ...] = _CLIP_MEAN
    image_std: tuple[float, ...] = _CLIP_STD
    resample: int = Image.Resampling.BICUBIC

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], image_size: int, place: str = "preprocessor_config.json") -> Self:
        """Reads the settings of transformers' BlipImageProcessor.

        Args:
            values: what the file has; what it leaves out is the family's.
            image_size: what the vision tower reads.
            place: what messages call the file.

        Raises:
            CheckpointError: it has a setting that we do not follow, or a size that is not the tower's.
        """
        settings = _Settings(values, place)
        rescales, normalises = settings.flag("do_rescale", default=True), settings.flag("do_normalize", default=True)
        factor = settings.number("rescale_factor", _EIGHT_BITS)
        mean, std = settings.channels("image_mean", _CLIP_MEAN), settings.channels("image_std", _CLIP_STD)
        processor = cls(
            image_size=image_size,
            rescale_factor=factor if rescales else 1.0,
            image_mean=mean if normalises else (0.0, 0.0, 0.0),
            image_std=std if normalises else (1.0, 1.0, 1.0),
            resample=settings.filter(),
        )
        if 0 in processor.image_std:
            settings.problems.append("image_std has a 0, by which pixels would be divided")
        settings.refuse_the_rest(image_size)
        return processor

    def resized(self, image: Image.Image) -> Image.Image:
        """Returns a picture as an RGB square of S pixels a side; one that is such a square comes back equal."""
        return image.convert("RGB").resize((self.image_size, self.image_size), Image.Resampling(self.resample))

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """Returns pixel_values, (B, 3, S, S), float32.

        Raises:
            CheckpointError: the normalisation is not finite (a zero in `image_std`, say).
        """
        # Pixels that are not finite give no error further on: the model would answer something.
        extremes = torch.tensor([0.0, 255.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1)
        if not bool(self._normalised(extremes).isfinite().all()):
            message = "preprocessing produces values that are not finite: check image_std in preprocessor_config.json."
            raise CheckpointError(message, code="non_finite_pixels")
        # PIL resizes, not torch: the two filters differ, and transformers' answers are the measure.
        resized = [np.asarray(self.resized(image)) for image in images]
        # Colour by colour while they are bytes: what follows takes six times as long over numbers pixel by pixel.
        return self._normalised(torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous().float())

    def _normalised(self, pixels: Tensor) -> Tensor:
        # Divided where the factor is 1/255: a product with it differs in the last bit.
        pixels = pixels / 255 if self.rescale_factor == _EIGHT_BITS else pixels * self.rescale_factor
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.image_mean, self.image_std))
        return pixels.sub_(mean).div_(std)


def image_settings(folder: Path) -> tuple[dict[str, Any], str]:
    """Returns a folder's settings of pictures, and the place that they stand at.

    transformers 5 nests them in processor_config.json, and reads those where a preprocessor_config.json of an older
    save lies beside; a folder may have neither, and the family's values hold.
    """
    nested = folder / "processor_config.json"
    values = read_json_object(nested).get("image_processor") if nested.exists() else None
    if values is not None:
        place = f"image_processor in {nested}"
        return dict(as_mapping(values, place)), place
    flat = folder / "preprocessor_config.json"
    return (read_json_object(flat) if flat.exists() else {}), str(flat)


def read_image_processor(folder: Path, config: InstructBlipConfig, image_size: int | None = None) -> ImageProcessor:
    """Reads how a folder's pictures become pixel values.

    Args:
        folder: of a model.
        config: its configuration.
        image_size: side in pixels that the user wants, whatever the file says; the file's and tower's if None.

    Raises:
        CheckpointError: a setting is of a wrong type, or cannot be followed.
    """
    values, place = image_settings(folder)
    if image_size is not None:
        values = {**values, "size": image_size}
    return ImageProcessor.from_dict(values, image_size or config.vision_config.image_size, place)


class _Settings:
    """An image processor's settings, each read by name and type; what nothing has read must be known to be harmless.

    Args:
        values: what the file has; null of a key means its default.
        place: what messages call the file.
    """

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        self.unread = {name: value for name, value in values.items() if value is not None}
        self.place = place
        self.problems: list[str] = []

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.unread.pop(name, default)
        return bool(self._checked(name, value, isinstance(value, bool), "true or false", default))

    def number(self, name: str, default: float) -> float:
        value = self.unread.pop(name, default)
        return float(self._checked(name, value, is_number(value), "a number", default))

    def channels(self, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
        value = self.unread.pop(name, default)
        numbers = [value] * 3 if is_number(value) else value  # transformers takes one number for all channels
        is_right = isinstance(numbers, list | tuple) and len(numbers) == 3 and all(map(is_number, numbers))
        return tuple(map(float, self._checked(name, numbers, is_right, "three numbers", default)))

    def filter(self) -> Image.Resampling:
        value = self.unread.pop("resample", Image.Resampling.BICUBIC)
        filters = [known for known in Image.Resampling if value in (known.value, known.name.lower())]
        expected = (
            f"a number or name of Pillow's filters ({', '.join(known.name.lower() for known in Image.Resampling)})"
        )
        self._checked("resample", value, bool(filters) and not isinstance(value, bool), expected, None)
        return filters[0] if filters else Image.Resampling.BICUBIC

    def refuse_the_rest(self, image_size: int) -> None:
        """Refuses what would change the pixels if it were ignored.

        Raises:
            CheckpointError: with every setting that we do not follow.
        """
        size = self.unread.pop("size", image_size)
        if size not in (image_size, {"height": image_size, "width": image_size}):
            why = f"the vision tower reads {image_size} x {image_size}; --image-size reads other sizes"
            self.problems.append(f"size is {size}, but {why}")
        for name, needed in _NEEDED.items():
            if self.unread.pop(name, needed) != needed:
                self.problems.append(f"{name} is {str(not needed).lower()}, which is not computed")
        kind = self.unread.pop("image_processor_type", _TYPES[0])
        if kind not in _TYPES:
            self.problems.append(f"image_processor_type is {shortened(str(kind), 40)}, BLIP's was expected")
        for name, value in self.unread.items():
            if name not in _WITHOUT_EFFECT:
                self.problems.append(f"{name} is {shortened(str(value), 40)}, which this version does not know")
        refuse(self.problems, self.place)

    def _checked(self, name: str, value: Any, is_right: bool, expected: str, default: Any) -> Any:
        if not is_right:
            self.problems.append(f"{name} should be {expected}, got {shortened(str(value), 40)}")
        return value if is_right else default
