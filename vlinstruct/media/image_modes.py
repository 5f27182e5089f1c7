"""Turns every pixel layout that our six formats can hold into 8-bit RGB.

The rules, none of which clips in silence:
    transparency         laid on white
    16-bit grey, I       0 to 65,535 becomes 0 to 255 (divided by 257, rounded); 32-bit values outside that are refused
    16-bit colour        Pillow reads the high byte of each sample
    F                    0.0 to 1.0 becomes 0 to 255, rounded; anything else, NaN too, is refused
    CMYK, YCbCr, palette, 1-bit   Pillow's conversion; embedded colour profiles are not applied
    LAB                  to sRGB through littleCMS
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import cast

from PIL import Image

from vlinstruct.files import refusal

_WHITE = (255, 255, 255)
_MAX_16_BIT = 65_535


def to_rgb(image: Image.Image, place: str) -> Image.Image:
    """Returns a new 8-bit RGB image.

    Args:
        image: a decoded image in any of Pillow's modes.
        place: the file, for messages.

    Raises:
        ImageError: its values have no agreed 8-bit meaning (`image_pixel_range`).
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _grey_from_integers(image, place)
    elif image.mode == "F":
        image = _grey_from_floats(image, place)
    elif image.mode == "LAB":
        image = _rgb_from_lab(image)
    return _on_white(image) if image.has_transparency_data else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    # A plain convert("RGB") would bring the colours hidden under full transparency to light.
    straight = image.convert("LA") if image.mode == "La" else image
    rgba = straight.convert("RGBA")
    canvas = Image.new("RGB", image.size, _WHITE)
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return canvas


@lru_cache(maxsize=1)
def _eight_bits() -> tuple[int, ...]:
    return tuple((value + 128) // 257 for value in range(_MAX_16_BIT + 1))


def _grey_from_integers(image: Image.Image, place: str) -> Image.Image:
    transparent = image.info.get("transparency")
    wide = image.convert("I")
    low, high = cast("tuple[int, int]", wide.getextrema())
    if low < 0 or high > _MAX_16_BIT:
        raise _bad_range(place, f"its grey values run from {low} to {high}, 0 to {_MAX_16_BIT} can be read")
    grey = wide.point(_eight_bits(), "L")
    grey.info.pop("transparency", None)
    if isinstance(transparent, int):
        opaque = [0 if value == transparent else 255 for value in range(_MAX_16_BIT + 1)]
        grey.putalpha(wide.point(opaque, "L"))
    return grey


def _grey_from_floats(image: Image.Image, place: str) -> Image.Image:
    low, high = cast("tuple[float, float]", image.getextrema())
    # The extrema skip NaN; a mean does not.
    mean = cast("float", image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0)))
    if not (low >= 0 and high <= 1 and math.isfinite(mean)):
        raise _bad_range(
            place, f"its float values run from {low:.4g} to {high:.4g}, finite ones from 0 to 1 can be read"
        )
    return image.point(lambda value: value * 255 + 0.5).convert("L")


def _rgb_from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return cast("Image.Image", ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB"))


def _bad_range(place: str, why: str) -> Exception:
    return refusal("image", place, "pixel_range", why, "Save it with 8 bits per sample")
