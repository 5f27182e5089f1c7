"""Turns every pixel layout that our six formats can hold into 8-bit RGB.

The rules, none of which clips in silence:
    transparency         laid on white
    16-bit grey, I       0 to 65,535 becomes 0 to 255 (divided by 257, rounded); 32-bit values outside that are refused
    12-bit grey (TIFF)   0 to 4,095 becomes 0 to 255, which Pillow leaves to us
    white is zero (TIFF) 16-bit grey is inverted, which Pillow does for 8 bits only
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
_MAX_16_BIT, _MAX_14_BIT, _MAX_12_BIT = 65_535, 16_383, 4_095
_BITS_PER_SAMPLE_TAG, _PHOTOMETRIC_TAG = 258, 262  # TIFF's


def to_rgb(image: Image.Image, place: str) -> Image.Image:
    """Returns a new 8-bit RGB image.

    Args:
        image: a decoded image in any of Pillow's modes.
        place: the file, for messages.

    Raises:
        ImageError: its values have no agreed 8-bit meaning (`image_pixel_range`).
    """
    if _is_integer_grey(image):
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


def is_wide_colour(image: Image.Image) -> bool:
    """Says whether a colour picture that is opened and not decoded yet stores 16 bits per sample.

    Pillow keeps the high byte of each and does not tell afterwards.
    """
    tiles = getattr(image, "tile", ())
    return not _is_integer_grey(image) and any(";16" in str(tile[3]) for tile in tiles)


def range_notice(image: Image.Image, *, is_wide: bool) -> str | None:
    """Returns what to say of a picture whose values use so little of their range that it is read as nearly black.

    Cameras and scanners of 10 to 14 bits store their values in 16 without scaling them. Which value is white is not in
    the file, so nothing is scaled here.

    Args:
        image: decoded, before `to_rgb`.
        is_wide: whether it is a colour picture of 16 bits, see `is_wide_colour`.
    """
    if _is_integer_grey(image):
        if _white_of(image) < _MAX_16_BIT:
            return None
        high = cast("tuple[int, int]", image.convert("I").getextrema())[1]
    elif is_wide:
        brightest = _brightest(image)
        high = 256 * brightest + 255 if brightest else 0  # the low bytes are lost
    else:
        return None
    if not 0 < high <= _MAX_14_BIT:
        return None
    shade = "white" if _is_white_zero(image) else "black"
    return (
        f"its values run to {high:,} of {_MAX_16_BIT:,}, so it is read as nearly {shade}; scale it to 16 bits, or to 8"
    )


def _brightest(image: Image.Image) -> int:
    extrema = image.convert("RGB").getextrema()
    return max(high for _, high in cast("tuple[tuple[int, int], ...]", extrema))


def _is_integer_grey(image: Image.Image) -> bool:
    return image.mode == "I" or image.mode.startswith("I;16")


def _is_white_zero(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC_TAG) == 0


def _white_of(image: Image.Image) -> int:
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE_TAG)
    return _MAX_12_BIT if bits == (12,) else _MAX_16_BIT


@lru_cache(maxsize=4)
def _eight_bits(white: int, is_inverted: bool) -> tuple[int, ...]:
    values = (min(255, (value * 255 + white // 2) // white) for value in range(_MAX_16_BIT + 1))
    return tuple(255 - value if is_inverted else value for value in values)


def _grey_from_integers(image: Image.Image, place: str) -> Image.Image:
    transparent = image.info.get("transparency")
    wide = image.convert("I")
    low, high = cast("tuple[int, int]", wide.getextrema())
    if low < 0 or high > _MAX_16_BIT:
        raise _bad_range(place, f"its grey values run from {low} to {high}, 0 to {_MAX_16_BIT} can be read")
    grey = wide.point(_eight_bits(_white_of(image), _is_white_zero(image)), "L")
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
