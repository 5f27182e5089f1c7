"""A picture that somebody opened with PIL is read as its file would be, and no other object is taken for one."""

from array import array
from io import BytesIO, StringIO

import numpy as np
import pytest
from PIL import Image

from vlinstruct.errors import ImageError
from vlinstruct.media.images import load_image

_SIZE = (6, 4)
_HELD = {  # what each of our formats can hold, as Pillow names it
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "I;16", "P", "RGB", "RGBA"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("1", "L", "P"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "LA", "I", "I;16", "F", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"),
}
_TRANSPARENT = [("PNG", "P"), ("PNG", "L"), ("PNG", "RGB"), ("PNG", "1"), ("GIF", "P")]


def _picture(mode):
    if mode == "I;16":
        return Image.frombytes(mode, _SIZE, array("H", range(0, 24 * 2600, 2600)).tobytes())
    if mode in ("I", "F"):
        values = range(0, 24 * 2600, 2600) if mode == "I" else [number / 24 for number in range(24)]
        image = Image.new(mode, _SIZE)
        image.putdata(list(values))
        return image
    ramp = Image.frombytes("RGBA", _SIZE, bytes(range(0, 192, 2)))
    if mode == "LAB":
        return Image.merge(mode, ramp.convert("RGB").split())
    return ramp.convert(mode) if mode in ("LA", "RGBA") else ramp.convert("RGB").convert(mode)


def _agree(content):
    by_path = load_image(content, name="it")
    opened = Image.open(BytesIO(content))
    lazy = load_image(opened, name="it")
    opened.load()
    decoded = load_image(opened, name="it")
    assert by_path.image.mode == lazy.image.mode == "RGB"
    assert by_path.image.size == lazy.image.size == decoded.image.size
    assert by_path.image.tobytes() == lazy.image.tobytes() == decoded.image.tobytes()
    assert by_path.notices == lazy.notices
    assert by_path.image_format == lazy.image_format
    return by_path.image


@pytest.mark.parametrize(("image_format", "mode"), [(name, mode) for name, modes in _HELD.items() for mode in modes])
def test_an_opened_picture_is_what_its_file_is(image_format, mode, encode):
    content = encode(_picture(mode), image_format)
    try:
        Image.open(BytesIO(content)).load()
    except OSError:  # Pillow 12.1 cannot read the YCbCr TIFF that it has written
        pytest.skip("this Pillow cannot read what it wrote")
    _agree(content)


@pytest.mark.parametrize(("image_format", "mode"), _TRANSPARENT)
def test_a_transparent_colour_is_white_in_an_opened_picture_too(image_format, mode, encode):
    image = Image.new(mode, _SIZE, 0)
    image.putpixel((0, 0), (255, 255, 255) if mode == "RGB" else 1)
    shown = _agree(encode(image, image_format, transparency=(0, 0, 0) if mode == "RGB" else 0))
    assert shown.getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_opened_picture_is_turned_upright(image_format, orientation, encode):
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.new("RGB", (16, 8), "white")
    image.paste("black", (0, 0, 8, 4))
    upright = _agree(encode(image, image_format, exif=exif))
    assert upright.size == ((16, 8) if orientation < 5 else (8, 16))
    corners = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}
    column, row = corners[orientation]
    assert upright.getpixel((column * (upright.width - 1), row * (upright.height - 1)))[0] < 90


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_only_the_first_frame_of_an_opened_animation_is_used_and_that_is_said(image_format, encode):
    frames = [Image.new("RGB", _SIZE, "blue")]
    content = encode(Image.new("RGB", _SIZE, "red"), image_format, save_all=True, append_images=frames)
    assert _agree(content).getpixel((0, 0))[0] > 200
    opened = Image.open(BytesIO(content))
    assert "only the first one is used" in load_image(opened).notices[0]
    opened.seek(1)  # chosen
    chosen = load_image(opened)
    assert chosen.notices == ()
    assert chosen.image.getpixel((0, 0))[2] > 200


def test_plain_rgb_passes_byte_for_byte_and_is_not_touched(picture):
    image = picture()
    image.info["dpi"] = (72, 72)
    loaded = load_image(image)
    assert loaded.image is image
    assert image.info == {"dpi": (72, 72)}
    assert (loaded.image_format, loaded.notices) == (None, ())


def test_what_was_read_from_a_file_is_read_as_it_is(encode):
    exif = Image.Exif()
    exif[274] = 6
    once = load_image(encode(Image.new("RGB", (16, 8), "red"), "JPEG", exif=exif)).image
    assert load_image(once).image is once


def test_a_picture_that_was_turned_already_is_not_turned_again(encode):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[274] = 6
    content = encode(Image.new("RGB", (16, 8), "red"), "JPEG", exif=exif)
    turned = ImageOps.exif_transpose(Image.open(BytesIO(content)))
    assert load_image(turned).image.tobytes() == load_image(content).image.tobytes()


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF"])
def test_damage_that_shows_only_when_an_opened_picture_is_decoded(image_format, picture, encode, refused):
    content = encode(picture(), image_format)
    opened = Image.open(BytesIO(content[: len(content) // 2]))
    error = refused(ImageError, "image_truncated", load_image, opened)
    assert "--allow-truncated" not in error.message  # no option reads what is not a file


def test_an_opened_picture_whose_file_was_closed(image_file, refused):
    with Image.open(image_file("a.png")) as image:
        pass
    assert "a.png" in refused(ImageError, "image_closed", load_image, image).message


def test_a_file_object_is_read_as_its_path(image_file):
    path = image_file("a.png")
    with path.open("rb") as stream:
        assert load_image(stream).image.tobytes() == load_image(path).image.tobytes()
    assert load_image(bytearray(path.read_bytes())).image.tobytes() == load_image(path).image.tobytes()


class _Tensor:
    shape = (2, 2, 3)


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        (_Tensor(), "array of (H, W, 3), uint8"),
        (None, "a PIL picture can be read"),
        (3, "a path"),
        (StringIO("x"), "mode 'rb'"),
    ],
)
def test_what_is_no_picture_is_named(source, advice, refused):
    assert advice in refused(ImageError, "image_bad_type", load_image, source).message


@pytest.mark.parametrize("given", [Image.new("RGB", (0, 5)), np.zeros((5, 0), np.uint8), np.zeros((0, 5, 3))])
def test_a_picture_without_pixels(given, refused):
    refused(ImageError, "image_unreadable", load_image, given)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "1", "I;16"])
def test_an_array_is_what_the_picture_of_its_pixels_is(mode):
    opened = _picture(mode)
    array = np.asarray(opened)
    expected = load_image(opened).image.tobytes()
    assert load_image(array).image.tobytes() == expected
    assert load_image(array[..., np.newaxis] if array.ndim == 2 else array).image.tobytes() == expected
    assert load_image(np.asfortranarray(array)).image.tobytes() == expected
    assert load_image(array[::-1]).image.tobytes() != expected  # a view of it is read as it lies


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_from_0_to_1_are_scaled_and_others_are_refused(kind, refused):
    array = np.asarray(_picture("RGB"))
    assert load_image((array / 255).astype(kind)).image.tobytes() == load_image(array).image.tobytes()
    for wrong in (array.astype(kind), (array / 255 - 0.5).astype(kind), np.full((2, 2), np.nan, kind)):
        refused(ImageError, "image_pixel_range", load_image, wrong)


@pytest.mark.parametrize(
    ("array", "code", "words"),
    [
        (np.zeros((3, 40, 30), np.uint8), "image_array_shape", "transpose(1, 2, 0)"),
        (np.zeros((2, 40, 30, 3), np.uint8), "image_array_shape", "one picture at a time"),
        (np.zeros(7, np.uint8), "image_array_shape", "(7,)"),
        (np.uint8(7), "image_array_shape", "()"),
        (np.zeros((4, 4), np.int64), "image_array_type", "it holds int64"),
        (np.zeros((4, 4, 3), np.uint16), "image_array_type", "it holds uint16"),
        (np.array([["a"]]), "image_array_type", "uint8"),
    ],
)
def test_an_array_whose_meaning_would_be_a_guess_is_refused(array, code, words, refused):
    assert words in refused(ImageError, code, load_image, array).message


@pytest.mark.parametrize("url", ["https://h/a.png?token=1", "data:image/png;base64," + "A" * 999, "s3://b/a.png"])
def test_a_url_is_named_as_one(url, refused):
    assert "it is a URL" in refused(ImageError, "image_is_url", load_image, url).message
