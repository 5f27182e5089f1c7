"""Reads a picture into 8-bit RGB, or says why it cannot: a path, bytes, a file object, PIL's picture or an array.

Order: regular file, byte cap, format by content, pixel cap from the header, decode, orientation, RGB. A picture that
somebody opened with PIL takes the last three of these steps, so that it is what its file would be. Nothing of
Pillow's global state is changed, so that several threads may read at once; its warnings, log lines and prints, and
libtiff's, are kept off the terminal. transformers' `load_image` is not used: it fetches any URL and opens any path.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BufferedReader, BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard, cast, get_args

# TIFF and WebP are imported here to be registered: Image.open would import all of its forty plugins to find them.
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401

from vlinstruct.errors import InputError, VlinstructError, is_out_of_files, printable, require, shortened
from vlinstruct.files import PathLike, open_regular, read_regular, refusal, too_many_bytes
from vlinstruct.media.image_formats import ImageFormat, NoImage, identify, lacks_its_end
from vlinstruct.media.image_modes import is_wide_colour, range_notice, to_rgb
from vlinstruct.media.quiet_pillow import quiet_pillow, silence_lines
from vlinstruct.media.truncated import (
    ROW_FORMATS,
    load_rows,
    missing_part,
    missing_rows,
    with_end,
    with_grey_rows,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

ImageLike: TypeAlias = "PathLike | bytes | BinaryIO | Image.Image | NDArray[Any]"
PICTURE_TYPES = (str, os.PathLike, bytes, Image.Image)
"""What is a picture by its class; a file object is one by its `read`, an array by its interface."""

PILLOW_MAX_PIXELS = 178_956_970
"""Above this Pillow refuses by itself (twice its MAX_IMAGE_PIXELS)."""

MAX_RUN_LENGTH_BMP = 10_000_000
"""Most pixels and bytes of a run-length coded BMP: Pillow decodes it in Python, 50 MP took 2 to 4 s."""

_HEAD_BYTES = 1024
_URL = re.compile(r"data:|[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_ORIENTATION_TAG = 274
_BMP_RUN_LENGTH = (1, 2)
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """How large a picture may be, and how whole it must be.

    Args:
        max_pixels: most pixels, read from the header before anything is decoded; 1 to 178,956,970.
        max_bytes: most bytes of the file, at least 1.
        allow_truncated: read what is there of a picture that was cut off (WebP and compressed TIFF apart); what is
            missing is grey.
    """

    max_pixels: int = 50_000_000
    max_bytes: int = 200_000_000
    allow_truncated: bool = False

    def __post_init__(self) -> None:
        require(
            (
                1 <= self.max_pixels <= PILLOW_MAX_PIXELS,
                f"max_pixels must be 1 to {PILLOW_MAX_PIXELS}, got {self.max_pixels}",
            ),
            (self.max_bytes >= 1, f"max_bytes must be at least 1, got {self.max_bytes}"),
        )


DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True, kw_only=True)
class LoadedImage:
    """A picture as the models read it.

    Args:
        image: 8-bit RGB, upright, on white where it was transparent.
        image_format: what the file's content was; None of a picture that was not opened from a file.
        notices: what a user should know, e.g. that only the first frame is used; each names the file.
    """

    image: Image.Image
    image_format: ImageFormat | None
    notices: tuple[str, ...] = ()


def load_image(source: ImageLike, *, name: str | None = None, limits: ImageLimits = DEFAULT_LIMITS) -> LoadedImage:
    """Reads a picture.

    Args:
        source: a path, the file's content, a binary file object, or a PIL picture, which is taken as its file would be:
            upright, on white, with its 16 bits; one that is plain RGB already is not copied. Or an array, (H, W) of
            grey or (H, W, C) of C channels: grey, red-green-blue (OpenCV's order is the reverse), or with transparency;
            uint8, floats from 0 to 1, bool, or grey uint16.
        name: what to call it in messages; the path, or `image data`.
        limits: how large it may be; what is in memory already is not refused for its size.

    Raises:
        ImageError: it cannot be read; `code` says why.
    """
    if isinstance(source, Image.Image):
        return _from_opened(source, name or getattr(source, "filename", "") or "PIL picture")
    if is_array(source):
        place = name or "array"
        return _from_opened(_picture_of(source, place), place)
    place = name or (os.fspath(source) if isinstance(source, str | os.PathLike) else "image data")
    if is_url(source):
        why = "it is a URL, and only those that are typed at the command line are fetched"
        raise refusal("image", shortened(str(source), 60), "is_url", why, "Give its bytes, or the path of a file")
    if isinstance(source, str | os.PathLike):
        content = read_regular(source, kind="image", max_bytes=limits.max_bytes)
    else:
        content = _content_of(source, place, limits)
        if len(content) > limits.max_bytes:
            raise too_many_bytes("image", place, len(content), limits.max_bytes)
    return _decode(content, image_format_of(content, place), place, limits)


def is_url(source: object) -> bool:
    """Says whether a text is a URL, and no file of that name is there."""
    return isinstance(source, str) and _URL.match(source) is not None and not os.path.lexists(source)


def is_array(value: object) -> TypeGuard[NDArray[Any]]:
    """Says whether a value is an array of numpy, or lies in memory like one; nothing is imported."""
    return hasattr(value, "__array_interface__") and not isinstance(value, Image.Image)


def read_image(source: ImageLike, *, name: str | None = None, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Reads a picture as `load_image` does, where nobody is told its notices: they are logged as warnings."""
    loaded = load_image(source, name=name, limits=limits)
    for notice in loaded.notices:
        logger.warning("%s", notice)
    return loaded.image


def _content_of(source: object, place: str, limits: ImageLimits) -> bytes:
    """Reads a file object, one byte past the cap at most."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    read = getattr(source, "read", None)
    if read is None:
        why = f"{type(source).__name__} is no picture; a path, bytes, a file, an array or a PIL picture can be read"
        advice = "Of a tensor, give an array of (H, W, 3), uint8" if hasattr(source, "shape") else "Give one of these"
        raise refusal("image", place, "bad_type", why, advice)
    content = read(limits.max_bytes + 1)
    if not isinstance(content, bytes):
        raise refusal("image", place, "bad_type", "its file is open as text", "Open it with mode 'rb'")
    return content


def _picture_of(array: NDArray[Any], place: str) -> Image.Image:
    """Returns an array as PIL has it; nothing is guessed of its values or the order of its axes."""
    import numpy as np  # an array is there, and so is numpy

    pixels = np.asarray(array)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2 and not (pixels.ndim == 3 and pixels.shape[2] in (3, 4)):
        is_channels_first = pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4)
        why = f"its shape is {pixels.shape}, (height, width) or (height, width, 3) can be read"
        advice = "Give array.transpose(1, 2, 0)" if is_channels_first else "Give one picture at a time"
        raise refusal("image", place, "array_shape", why, advice)
    if pixels.size == 0:
        check_size((pixels.shape[1], pixels.shape[0]), place, DEFAULT_LIMITS)
    kind = pixels.dtype
    if kind.kind == "b":
        pixels = pixels * np.uint8(255)
    elif kind.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())  # NaN where one is there
        if not (low >= 0 and high <= 1):
            why = f"its floats run from {low:.4g} to {high:.4g}, finite ones from 0 to 1 can be read"
            raise refusal("image", place, "pixel_range", why, "Scale it, or give it as uint8")
        pixels = (pixels * 255 + 0.5).astype(np.uint8)
    elif kind != np.uint8 and not (kind == np.uint16 and pixels.ndim == 2):
        why = f"it holds {kind}; uint8, or floats from 0 to 1, can be read"
        raise refusal("image", place, "array_type", why, "Give array.astype('uint8') if it runs from 0 to 255")
    return Image.fromarray(pixels)


def _from_opened(image: Image.Image, place: str) -> LoadedImage:
    name = "JPEG" if image.format == "MPO" else image.format  # a JPEG with further pictures
    image_format = cast("ImageFormat | None", name if name in get_args(ImageFormat) else None)
    with _pillow(b"", image_format, place):
        is_wide = is_wide_colour(image)
        image.load()
        if min(image.size) < 1:
            check_size(image.size, place, DEFAULT_LIMITS)
        notices = _notices(image, image_format, place, is_wide=is_wide)
        # Not copied where nothing is to be done: what `load_image` returned passes here again on its way to a model.
        is_plain = image.mode == "RGB" and not image.has_transparency_data and _orientation(image) not in _TRANSPOSES
        upright = image if is_plain else _upright_rgb(image, place)
        return LoadedImage(image=upright, image_format=image_format, notices=notices)


def check_image_header(path: PathLike, *, limits: ImageLimits = DEFAULT_LIMITS) -> None:
    """Reads a picture's header alone: what a training would refuse later is said in a thousandth of the time.

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
        check_size(_size_in_header(stream, image_format, place), place, limits)


def image_format_of(content: bytes, place: str) -> ImageFormat:
    """Returns a picture's format from its first bytes.

    Args:
        content: the file's beginning at least.
        place: what to call it in messages.

    Raises:
        ImageError: it is empty or none of the formats that are read.
    """
    if not content:
        raise refusal("image", place, "empty", "empty file", "Check where it came from")
    image_format = identify(content)
    if isinstance(image_format, NoImage):
        raise refusal("image", place, image_format.code, image_format.why, image_format.advice)
    return image_format


def _decode(content: bytes, image_format: ImageFormat, place: str, limits: ImageLimits) -> LoadedImage:
    try:
        return _decode_whole(content, image_format, place, limits)
    except InputError as error:
        if error.code != "image_truncated" or not limits.allow_truncated:
            raise
        if image_format in ROW_FORMATS:
            return _decode_rows(content, image_format, place, limits)
        if image_format != "JPEG":
            raise
    loaded = _decode_whole(with_end(content), image_format, place, limits)
    num_bytes = 2 * loaded.image.width * loaded.image.height  # more than any quality needs: they reach the last row
    try:
        other = _decode_whole(with_end(content, num_other_bytes=num_bytes), image_format, place, limits).image
    except InputError:
        other = None
    notice = f"{printable(place)}: it was cut off, {missing_part(content, loaded.image, other)}"
    return replace(loaded, notices=(*loaded.notices, notice))


def _decode_whole(content: bytes, image_format: ImageFormat, place: str, limits: ImageLimits) -> LoadedImage:
    with _pillow(content, image_format, place), Image.open(BytesIO(content), formats=[image_format]) as image:
        check_size(image.size, place, limits)
        if image_format == "BMP" and image.info.get("compression") in _BMP_RUN_LENGTH:
            _check_run_length(image.size, len(content), place)
        is_wide = is_wide_colour(image)
        image.load()
        upright = _upright_rgb(image, place)
        notices = _notices(image, image_format, place, is_wide=is_wide)
        return LoadedImage(image=upright, image_format=image_format, notices=notices)


def _decode_rows(content: bytes, image_format: ImageFormat, place: str, limits: ImageLimits) -> LoadedImage:
    """Reads the rows that are there of a picture that was cut off."""
    with (
        _pillow(content, image_format, place),
        Image.open(BytesIO(content), formats=[image_format]) as image,
        Image.open(BytesIO(content), formats=[image_format]) as other,
    ):
        check_size(image.size, place, limits)
        is_wide = is_wide_colour(image)
        are_filled = [load_rows(image, fill=False), load_rows(other, fill=True)]
        is_missing = missing_rows(image, other)
        if not all(are_filled) or all(is_missing):
            why = "no row of it is whole" if all(are_filled) else "of a GIF like this no part can be read"
            raise refusal("image", place, "truncated", f"truncated image, {why}", "Copy or download it again")
        notices = _notices(image, image_format, place, is_wide=is_wide)
        rgb = with_grey_rows(to_rgb(image, place), is_missing)
        upright = _upright(rgb, _orientation(image))
    share = sum(is_missing) / len(is_missing)
    what = f"about {share:.0%} of it is missing and grey" if share else "only its end is missing"
    notice = f"{printable(place)}: it was cut off, {what}"
    return LoadedImage(image=upright, image_format=image_format, notices=(*notices, notice))


def _upright_rgb(image: Image.Image, place: str) -> Image.Image:
    return _upright(to_rgb(image, place), _orientation(image))


def _upright(rgb: Image.Image, orientation: int) -> Image.Image:
    transpose = _TRANSPOSES.get(orientation)
    upright = rgb.transpose(transpose) if transpose is not None else rgb
    upright.info = {}
    return upright


def check_size(size: tuple[int, int], place: str, limits: ImageLimits) -> None:
    """Refuses a picture by its width and height, before anything is decoded.

    Raises:
        ImageError: it has no pixels, too many, or too extreme an aspect.
    """
    width, height = size
    if width < 1 or height < 1:
        why = f"not a readable image ({width} x {height} pixels)"
        raise refusal("image", place, "unreadable", why, "Check where it came from")
    if width * height > limits.max_pixels:
        why = f"{width} x {height} pixels, at most {limits.max_pixels:,} are decoded"
        raise refusal("image", place, "too_large", why, "Shrink it or raise --max-pixels")


def _size_in_header(stream: BufferedReader, image_format: str, place: str) -> tuple[int, int]:
    """Returns width and height."""
    silence_lines()
    try:
        with quiet_pillow, Image.open(stream, formats=[image_format]) as image:
            return image.size
    except Image.DecompressionBombError as error:
        raise refusal("image", place, "too_large", "too many pixels", "Shrink it") from error
    except Exception as error:  # Pillow raises a dozen kinds, from SyntaxError to struct.error, on damaged files
        if is_out_of_files(error):  # it imports its readers when they are needed
            raise
        why = f"not a readable image (its {image_format} header is damaged)"
        raise refusal("image", place, "unreadable", why, "Copy or download it again") from error


def _check_run_length(size: tuple[int, int], num_bytes: int, place: str) -> None:
    if max(size[0] * size[1], num_bytes) > MAX_RUN_LENGTH_BMP:
        why = f"a run-length coded BMP of more than {MAX_RUN_LENGTH_BMP:,} pixels or bytes decodes too slowly"
        raise refusal("image", place, "too_large", why, "Convert it to PNG")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF: the picture itself is sound and stays as it is stored
        return 1


def _notices(image: Image.Image, image_format: ImageFormat | None, place: str, *, is_wide: bool) -> tuple[str, ...]:
    whats = [] if (what := range_notice(image, is_wide=is_wide)) is None else [what]
    # A JPEG's further pictures (MPO: previews, depth, the other eye) are no frames of it. And who opened the file may
    # have chosen another frame.
    if image_format != "JPEG" and _has_more_frames(image) and image.tell() == 0:
        part = "page" if image_format == "TIFF" else "frame"
        whats.append(f"it has several {part}s, only the first one is used")
    return tuple(f"{printable(place)}: {what}" for what in whats)


def _has_more_frames(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a second frame exists and is damaged or too large; it is not needed
        return True


@contextmanager
def _pillow(content: bytes, image_format: ImageFormat | None, place: str) -> Iterator[None]:
    silence_lines()
    try:
        with quiet_pillow:
            yield
    except VlinstructError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds, from SyntaxError to struct.error, on damaged files
        if is_out_of_files(error):
            raise
        raise _explain(error, content, image_format, place) from error


def _explain(error: Exception, content: bytes, image_format: ImageFormat | None, place: str) -> InputError:
    # Pillow's own text is only looked at, never shown: it holds heap addresses.
    text = str(error).lower()
    if isinstance(error, Image.DecompressionBombError):
        why = f"more than {PILLOW_MAX_PIXELS:,} pixels"
        return refusal("image", place, "too_large", why, "Shrink it")
    if isinstance(error, MemoryError):
        return refusal("image", place, "out_of_memory", "not enough memory to decode it", "Shrink it")
    if "too large" in text or "too much memory" in text:
        why = "its metadata is too large when unpacked"
        return refusal("image", place, "metadata_too_large", why, "Save it again without metadata")
    if (
        isinstance(error, EOFError)
        or "truncated" in text
        or "not enough" in text
        or (image_format is not None and content and lacks_its_end(content, image_format))
    ):
        # Of PIL's picture there are no bytes that could be read another way.
        can_be_read = image_format == "JPEG" or image_format in ROW_FORMATS
        way_out = ", or read what is there: --allow-truncated" if can_be_read and content else ""
        why = "truncated image" + (f", of {image_format} no part can be read" if image_format == "WEBP" else "")
        return refusal("image", place, "truncated", why, f"Copy or download it again{way_out}")
    if not content and ("closed" in text or isinstance(error, AttributeError | AssertionError)):
        why = "its file was closed before its pixels were read"
        return refusal("image", place, "closed", why, "Call its load() while the file is open, or give the path")
    if isinstance(error, UnidentifiedImageError):
        why = f"not a readable image (its {image_format} header is damaged)"
        return refusal("image", place, "unreadable", why, "Copy or download it again")
    return refusal("image", place, "damaged", "damaged image", "Copy or download it again")
