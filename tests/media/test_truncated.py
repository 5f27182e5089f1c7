"""A picture that was cut off is read where that is allowed, and what is missing is said."""

import random
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

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


ROWS = {
    "PNG": ("RGB", {}),
    "PNG with alpha": ("RGBA", {}),
    "PNG of a palette": ("P", {}),
    "PNG of bits": ("1", {}),
    "PNG of 16 bits": ("I;16", {}),
    "GIF": ("P", {"interlace": 0}),
    "GIF with its rows in turns": ("P", {"interlace": 1}),
    "BMP": ("RGB", {}),
    "TIFF": ("RGB", {}),
}


@pytest.fixture
def rows_of(photo, encode):
    def encoded(kind):
        mode, options = ROWS[kind]
        image = Image.open(BytesIO(photo("PNG")))
        wide = image.convert("L").point(lambda value: 256 * value, "I").convert("I;16") if mode == "I;16" else None
        return encode(wide or image.convert(mode), kind.split()[0], **options)

    return encoded


@pytest.mark.parametrize("kept", [0.5, 0.8])
@pytest.mark.parametrize("kind", ROWS)
def test_whole_rows_are_right_and_the_others_grey(kind, kept, rows_of, refused):
    content = rows_of(kind)
    cut = content[: int(kept * len(content))]
    assert "--allow-truncated" in refused(ImageError, "image_truncated", load_image, cut).message
    loaded, whole = load_image(cut, name="a", limits=_ALLOWED), load_image(content).image
    rows = [(loaded.image.crop((0, y, 128, y + 1)), whole.crop((0, y, 128, y + 1))) for y in range(96)]
    num_right = sum(row.tobytes() == expected.tobytes() for row, expected in rows)
    num_grey = sum(set(row.tobytes()) == {128} for row, _ in rows)
    assert num_right + num_grey == 96
    assert 0 < num_grey < 96
    assert f"a: it was cut off, about {num_grey / 96:.0%} of it is missing and grey" in loaded.notices


def test_who_lacks_the_last_chunk_alone_lacks_no_pixel(photo):
    content = photo("PNG")
    loaded = load_image(content[:-12], name="a.png", limits=_ALLOWED)
    assert loaded.image.tobytes() == load_image(content).image.tobytes()
    assert loaded.notices in ((), ("a.png: it was cut off, only its end is missing",))


def test_a_cut_picture_is_turned_upright_with_its_grey(photo, encode):
    exif = Image.Exif()
    exif[274] = 6
    content = encode(Image.open(BytesIO(photo("PNG"))), "PNG", exif=exif)
    image = load_image(content[: len(content) // 2], limits=_ALLOWED).image
    assert image.size == (96, 128)
    assert image.getpixel((0, 64)) == (128, 128, 128)


def test_damage_is_no_cut(photo, refused):
    content = bytearray(photo("PNG"))
    content[len(content) // 2] ^= 0xFF
    refused(ImageError, "image_damaged", load_image, bytes(content), limits=_ALLOWED)


def test_without_a_whole_row_nothing_is_read(photo, refused):
    refused(ImageError, "image_truncated", load_image, photo("PNG")[:100], limits=_ALLOWED)


def test_of_a_gif_with_transparency_nobody_knows_what_is_missing(photo, encode, refused):
    image = Image.open(BytesIO(photo("PNG"))).convert("P")
    content = encode(image, "GIF", transparency=image.getpixel((0, 0)))
    error = refused(ImageError, "image_truncated", load_image, content[: len(content) // 2], limits=_ALLOWED)
    assert "of a GIF like this no part can be read" in error.message


def test_of_webp_no_part_can_be_read_and_that_is_said(photo, refused):
    error = refused(ImageError, "image_truncated", load_image, photo("WEBP")[:-300], limits=_ALLOWED)
    assert "of WEBP no part can be read" in error.message
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
