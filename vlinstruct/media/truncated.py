"""What is left of a picture that was cut off; what was lost is grey.

A JPEG gets its end marker back. PNG, GIF, BMP and uncompressed TIFF are decoded row by row: Pillow's decoder has put
the rows that are there into the picture when it finds that others are not. libwebp and libtiff give nothing of what is
not whole. Pillow's own way, `ImageFile.LOAD_TRUNCATED_IMAGES`, is a global of the process: it would let every other
thread's truncated picture pass without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from PIL import Image, ImageChops, ImageFile

ROW_FORMATS = ("PNG", "GIF", "BMP", "TIFF")
"""What is decoded row by row."""

_GREY = (128, 128, 128)

_END = b"\xff\xd9"
_PROGRESSIVE = b"\xff\xc2"  # a frame header's marker; entropy coded bytes never hold it
_OTHER_REST = bytes.fromhex("129be735c4")


def with_end(content: bytes, *, num_other_bytes: int = 0) -> bytes:
    """Returns a JPEG's bytes with the end marker.

    Args:
        content: what is there of it.
        num_other_bytes: put so many arbitrary bytes in the place of the lost ones: where they change a pixel, it was
            lost.
    """
    return content + _OTHER_REST * (num_other_bytes // len(_OTHER_REST)) + _END


def missing_part(content: bytes, image: Image.Image, other: Image.Image | None) -> str:
    """Returns how much is missing, in words.

    Args:
        content: what is there of the JPEG.
        image: as it is read with the end marker.
        other: as it is read with another rest; None where that cannot be read.
    """
    if other is None or image.size != other.size:
        return "a part of it is missing and grey"
    box = ImageChops.difference(image, other).getbbox()
    if box is None:
        return "only its end marker is missing"
    if _PROGRESSIVE in content:  # every scan covers the whole picture
        return "its last scans are missing, so details are"
    share = (box[2] - box[0]) * (box[3] - box[1]) / (image.width * image.height)
    return f"about {share:.0%} of it is missing and grey"


def load_rows(image: ImageFile.ImageFile, *, fill: bool) -> bool:
    """Loads an opened picture as far as its file goes; what is missing keeps the lowest or the highest value.

    Args:
        image: of ROW_FORMATS, not loaded yet.
        fill: whether that is the highest.

    Returns:
        Whether it does: a GIF with transparency is filled by its decoder, and one with a small frame around that.

    Raises:
        OSError: it is damaged in another way.
    """
    highest = (65_535 if image.mode.startswith("I;16") else 255) * fill
    bands = len(image.getbands())
    is_full = image.format != "GIF" or all(tile[1] == (0, 0, *image.size) for tile in image.tile)
    # Pillow decodes into a picture that is there already and fits.
    image.im = filled = Image.new(image.mode, image.size, highest if bands == 1 else (highest,) * bands).im
    try:
        image.load()
    except OSError as error:
        if "truncated" not in str(error):
            raise
        image.tile = []  # nothing more is to be loaded
    return is_full and image.im is filled


def missing_rows(low: Image.Image, high: Image.Image) -> list[bool]:
    """Returns of every row whether a part of it is missing, given one picture with both fills."""
    rows = zip(_rows(low), _rows(high), strict=True)
    return [low_row != high_row for low_row, high_row in rows]


def _rows(image: Image.Image) -> Iterator[bytes]:
    content = image.tobytes()
    stride = len(content) // image.height
    return (content[row * stride : (row + 1) * stride] for row in range(image.height))


def with_grey_rows(image: Image.Image, is_missing: Sequence[bool]) -> Image.Image:
    """Returns an RGB picture with grey in the place of rows."""
    grey = image.copy()
    row = 0
    for missing, group in groupby(is_missing):
        count = len(list(group))
        if missing:
            grey.paste(_GREY, (0, row, image.width, row + count))
        row += count
    return grey
