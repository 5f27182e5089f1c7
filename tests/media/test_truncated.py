"""A JPEG that was cut off is read where that is allowed, and what is missing is said; nothing else is read in part."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image, ImageFile

from vlinstruct.errors import ImageError
from vlinstruct.media.images import ImageLimits, load_image

_ALLOWED = ImageLimits(allow_truncated=True)


@pytest.fixture
def photo(encode):
    coarse = Image.frombytes("RGB", (16, 12), random.Random(1).randbytes(16 * 12 * 3))
    image = coarse.resize((128, 96), Image.Resampling.BICUBIC)
    return lambda image_format="JPEG", **options: encode(image, image_format, **options)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}])
def test_who_lacks_the_end_marker_alone_lacks_no_pixel(options, photo, refused):
    content = photo(**options)
    error = refused(ImageError, "image_truncated", load_image, content[:-2])
    assert "--allow-truncated" in error.message
    loaded = load_image(content[:-2], name="a.jpg", limits=_ALLOWED)
    assert loaded.image.tobytes() == load_image(content).image.tobytes()
    assert loaded.notices == ("a.jpg: it was cut off, only its end marker is missing",)


@pytest.mark.parametrize("kept", [0.4, 0.6, 0.8])
def test_what_is_there_is_right_and_the_rest_is_counted(kept, photo):
    content = photo(quality=95, subsampling=0)
    loaded = load_image(content[: int(kept * len(content))], limits=_ALLOWED)
    whole = load_image(content).image
    share = int(loaded.notices[0].partition("about ")[2].partition("%")[0]) / 100
    assert abs(1 - kept - share) < 0.25
    top = (0, 0, 128, int(96 * (1 - share)) - 8)  # a row of blocks less, the share is rounded
    assert loaded.image.crop(top).tobytes() == whole.crop(top).tobytes()


def test_a_progressive_picture_loses_details(photo):
    content = photo(progressive=True, quality=95)
    loaded = load_image(content[: len(content) // 2], limits=_ALLOWED)
    assert "its last scans are missing" in loaded.notices[0]
    assert loaded.image.size == (128, 96)


def test_whole_pictures_are_as_they_were(photo):
    content = photo()
    assert load_image(content, limits=_ALLOWED).image.tobytes() == load_image(content).image.tobytes()
    assert load_image(content, limits=_ALLOWED).notices == ()


@pytest.mark.parametrize("image_format", ["PNG", "GIF", "WEBP"])
def test_other_formats_are_refused_as_before(image_format, photo, refused):
    content = photo(image_format)[:-300]
    error = refused(ImageError, "image_truncated", load_image, content, limits=_ALLOWED)
    assert "--allow-truncated" not in error.message


def test_a_jpeg_without_any_pixels_is_refused(photo, refused):
    refused(ImageError, "image_truncated", load_image, photo()[:100], limits=_ALLOWED)


def test_one_thread_may_what_another_may_not(photo):
    content = photo()[:-2]

    def read(number):
        try:
            return load_image(content, limits=_ALLOWED if number % 2 else ImageLimits()).image.size
        except ImageError as error:
            return error.code

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(read, range(40)))
    assert outcomes == ["image_truncated", (128, 96)] * 20
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
