"""Looks at a picture's header alone: what a training would refuse later is said in a thousandth of the time."""

from __future__ import annotations

import os
from io import BufferedReader

from PIL import Image

from vlinstruct.files import PathLike, open_regular, refusal, too_many_bytes
from vlinstruct.media.images import (
    DEFAULT_LIMITS,
    ImageLimits,
    check_size,
    image_format_of,
    quiet_pillow,
    silence_lines,
)

_HEAD_BYTES = 1024


def check_image_header(path: PathLike, *, limits: ImageLimits = DEFAULT_LIMITS) -> None:
    """Reads a picture's header and decodes nothing.

    Args:
        path: the file.
        limits: how large it may be.

    Raises:
        ImageError: as `load_image`, apart from damage behind the header.
    """
    place = os.fspath(path)
    with open_regular(path, kind="image") as stream:
        size_bytes = os.fstat(stream.fileno()).st_size
        if size_bytes > limits.max_bytes:
            raise too_many_bytes("image", place, size_bytes, limits.max_bytes)
        image_format = image_format_of(stream.peek(_HEAD_BYTES)[:_HEAD_BYTES], place)
        check_size(_size(stream, image_format, place), place, limits)


def _size(stream: BufferedReader, image_format: str, place: str) -> tuple[int, int]:
    """Returns width and height."""
    silence_lines()
    try:
        with quiet_pillow, Image.open(stream, formats=[image_format]) as image:
            return image.size
    except Image.DecompressionBombError as error:
        raise refusal("image", place, "too_large", "too many pixels", "Shrink it") from error
    except Exception as error:  # Pillow raises a dozen kinds, from SyntaxError to struct.error, on damaged files
        why = f"not a readable image (its {image_format} header is damaged)"
        raise refusal("image", place, "unreadable", why, "Copy or download it again") from error
