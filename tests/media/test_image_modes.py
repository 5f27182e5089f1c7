"""Every pixel layout becomes the right 8-bit RGB, or is refused."""

import math
import struct
import zlib
from array import array

import pytest
from PIL import Image

from vlinstruct.errors import ImageError
from vlinstruct.media.image_modes import to_rgb
from vlinstruct.media.images import load_image


def _grey_16(values, image_format, encode, **options):
    return encode(Image.frombytes("I;16", (len(values), 1), array("H", values).tobytes()), image_format, **options)


def _pixels(image):
    return [image.getpixel((x, 0)) for x in range(image.width)]


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_colour_hidden_under_transparency_becomes_white(image_format, encode):
    image = Image.new("RGBA", (3, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 255, 255))
    image.putpixel((2, 0), (0, 0, 0, 51))
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    loaded = load_image(encode(image, image_format, **options)).image
    assert _pixels(loaded) == [(255, 255, 255), (0, 0, 255), (204, 204, 204)]


def test_grey_with_alpha(encode):
    image = Image.new("LA", (2, 1), (0, 0))
    image.putpixel((1, 0), (100, 255))
    assert _pixels(load_image(encode(image, "PNG")).image) == [(255, 255, 255), (100, 100, 100)]


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_palette_with_a_transparent_entry(image_format, encode):
    image = Image.new("P", (2, 1), 0)
    image.putpalette([255, 0, 0, 0, 128, 0])
    image.putpixel((1, 0), 1)
    loaded = load_image(encode(image, image_format, transparency=0)).image
    assert _pixels(loaded) == [(255, 255, 255), (0, 128, 0)]


def test_palette_with_alpha_bytes(encode):
    image = Image.new("P", (2, 1), 0)
    image.putpalette([255, 0, 0, 0, 0, 0])
    image.putpixel((1, 0), 1)
    assert _pixels(load_image(encode(image, "PNG", transparency=b"\0\x33")).image) == [(255,) * 3, (204,) * 3]


@pytest.mark.parametrize(("mode", "key", "other"), [("RGB", (9, 8, 7), (1, 2, 3)), ("L", 9, 5), ("1", 0, 1)])
def test_colour_key_transparency(mode, key, other, encode):
    image = Image.new(mode, (2, 1), key)
    image.putpixel((1, 0), other)
    first, second = _pixels(load_image(encode(image, "PNG", transparency=key)).image)
    assert first == (255, 255, 255)
    assert second == (other if mode == "RGB" else (5, 5, 5) if mode == "L" else (255, 255, 255))


def test_cmyk_tiff_and_jpeg(encode):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert load_image(encode(image, "TIFF")).image.getpixel((5, 5)) == (255, 0, 0)
    pixel = load_image(encode(image, "JPEG", quality=100)).image.getpixel((5, 5))
    assert max(abs(a - b) for a, b in zip(pixel, (255, 0, 0), strict=True)) < 6


def test_ycbcr_lab_and_one_bit(encode):
    ycbcr = Image.new("RGB", (4, 4), (200, 30, 40)).convert("YCbCr")
    stored = load_image(encode(ycbcr, "TIFF", compression="tiff_lzw")).image  # Pillow 12.1 reads no YCbCr without one
    for image in (stored, to_rgb(ycbcr, "x")):
        assert max(abs(a - b) for a, b in zip(image.getpixel((1, 1)), (200, 30, 40), strict=True)) < 3
    grey = load_image(encode(Image.new("LAB", (4, 4), (128, 128, 128)), "TIFF")).image.getpixel((1, 1))
    assert max(grey) - min(grey) <= 2
    assert 110 <= grey[0] <= 130
    bits = Image.new("1", (2, 1), 0)
    bits.putpixel((1, 0), 1)
    assert _pixels(load_image(encode(bits, "PNG")).image) == [(0, 0, 0), (255, 255, 255)]


def test_lab_colour(encode):
    red = load_image(encode(Image.new("LAB", (4, 4), (136, 208, 195)), "TIFF")).image.getpixel((1, 1))
    assert red[0] > 240
    assert max(red[1:]) < 30


def test_palette_with_alpha_channel_and_premultiplied_modes():
    pa = Image.new("PA", (2, 1), (0, 0))
    pa.putpalette([255, 0, 0, 0, 128, 0])
    pa.putpixel((1, 0), (1, 255))
    assert _pixels(to_rgb(pa, "x")) == [(255, 255, 255), (0, 128, 0)]
    assert _pixels(to_rgb(Image.new("RGBa", (1, 1), (0, 0, 51, 51)), "x")) == [(204, 204, 255)]
    assert _pixels(to_rgb(Image.new("La", (1, 1), (0, 51)), "x")) == [(204, 204, 204)]
    assert _pixels(to_rgb(Image.new("RGBX", (1, 1), (1, 2, 3, 0)), "x")) == [(1, 2, 3)]


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_divided_by_257(image_format, encode):
    values = [0, 128, 129, 257, 32_768, 65_406, 65_407, 65_535]
    loaded = load_image(_grey_16(values, image_format, encode)).image
    assert _pixels(loaded) == [(round(value / 257),) * 3 for value in values]


def test_no_level_is_clipped(encode):
    loaded = load_image(_grey_16(range(0, 65_536, 64), "PNG", encode)).image
    assert len(set(_pixels(loaded))) == 256


def test_big_endian_grey():
    image = Image.frombytes("I;16B", (2, 1), b"\x01\x01\xff\xff")
    assert _pixels(to_rgb(image, "x")) == [(1, 1, 1), (255, 255, 255)]


def test_sixteen_bit_grey_with_a_colour_key(encode):
    loaded = load_image(_grey_16([1000, 1001, 65_535], "PNG", encode, transparency=1000)).image
    assert _pixels(loaded) == [(255,) * 3, (4,) * 3, (255,) * 3]


def test_integers_are_read_as_sixteen_bit_or_refused(encode, refused):
    image = Image.new("I", (2, 1), 0)
    image.putpixel((1, 0), 65_535)
    assert _pixels(load_image(encode(image, "TIFF")).image) == [(0, 0, 0), (255, 255, 255)]
    for value in (65_536, -1):
        image.putpixel((0, 0), value)
        error = refused(ImageError, "image_pixel_range", load_image, encode(image, "TIFF"))
        assert str(value) in error.message


def test_floats_from_0_to_1_are_scaled(encode):
    image = Image.new("F", (3, 1), 0.0)
    image.putpixel((1, 0), 0.5)
    image.putpixel((2, 0), 1.0)
    assert _pixels(load_image(encode(image, "TIFF")).image) == [(0,) * 3, (128,) * 3, (255,) * 3]


@pytest.mark.parametrize("value", [1.5, -0.1, math.nan, math.inf, 255.0])
@pytest.mark.parametrize("place", [0, 1])
def test_other_floats_are_refused(value, place, encode, refused):
    image = Image.new("F", (64, 64), 0.5)
    image.putpixel((place, place * 40), value)
    refused(ImageError, "image_pixel_range", load_image, encode(image, "TIFF"))


def _tiff(bits, values, *, white_is_zero=False):
    """One row of grey in a TIFF of 12 or 16 bits."""
    if bits == 12:
        packed = int("".join(f"{value:012b}" for value in values), 2).to_bytes(len(values) * 12 // 8, "big")
    else:
        packed = array("H", values).tobytes()
    tags = [(256, len(values)), (257, 1), (258, bits), (259, 1), (262, 0 if white_is_zero else 1)]
    tags += [(273, 8 + 2 + 9 * 12 + 4), (277, 1), (278, 1), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + packed


def test_a_tiff_of_12_bits_has_its_white_at_4095():
    loaded = load_image(_tiff(12, [0, 2048, 4095, 16]))
    assert _pixels(loaded.image) == [(0,) * 3, (128,) * 3, (255,) * 3, (1,) * 3]
    assert loaded.notices == ()


def test_16_bit_grey_whose_white_is_zero_is_no_negative():
    assert _pixels(load_image(_tiff(16, [0, 65535, 257], white_is_zero=True)).image) == [
        (255,) * 3,
        (0,) * 3,
        (254,) * 3,
    ]
    assert _pixels(load_image(_tiff(16, [0, 65535, 257])).image) == [(0,) * 3, (255,) * 3, (1,) * 3]


def test_few_bits_of_white_is_zero_are_nearly_white():
    loaded = load_image(_tiff(16, [0, 4095], white_is_zero=True))
    assert "read as nearly white" in loaded.notices[0]
    assert _pixels(loaded.image)[1] == (239,) * 3


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_grey_of_fewer_bits_that_is_stored_in_16_is_said_and_not_scaled(bits, image_format, encode):
    white = 2**bits - 1
    loaded = load_image(_grey_16([0, white], image_format, encode), name="scan.png")
    assert f"scan.png: its values run to {white:,} of 65,535, so it is read as nearly black" in loaded.notices[0]
    assert _pixels(loaded.image)[1][0] == round(white / 257)


@pytest.mark.parametrize("values", [[0, 0], [0, 65535], [0, 16384]])
def test_grey_that_uses_its_range_is_not_remarked_upon(values, encode):
    assert load_image(_grey_16(values, "PNG", encode)).notices == ()


def _colour_16(white, png_chunk):
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">HHH", white, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(name, content) for name, content in ((b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b""))
    )


def test_colour_of_12_bits_that_is_stored_in_16_is_said(png_chunk):
    dark, light = (load_image(_colour_16(white, png_chunk)) for white in (4095, 65535))
    assert "its values run to 4,095 of 65,535" in dark.notices[0]
    assert _pixels(dark.image) == [(15, 0, 0)]
    assert light.notices == ()
    assert _pixels(light.image) == [(255, 0, 0)]
