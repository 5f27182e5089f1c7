"""A few thousand damaged pictures: nothing but ImageError comes out, and soon."""

import contextlib
import random
import struct
import time

import pytest

from vlinstruct.errors import ImageError
from vlinstruct.media.images import ImageLimits, load_image

LIMITS = ImageLimits(max_pixels=1_000_000)
MUTANTS_PER_SEED = 500
SEEDS = ("jpeg", "progressive", "png", "palette", "apng", "webp", "webp-alpha", "gif", "bmp", "bmp-palette", "bmp-rle")
SEEDS += ("tiff", "tiff-lzw", "tiff-jpeg")


def _mutant(content: bytes, dice: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 8, 32))):
        where = min(int(dice.expovariate(4 / len(damaged))), len(damaged) - 1)  # headers break in more ways than data
        match dice.randrange(5):
            case 0:
                damaged[where] = dice.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 1:
                damaged[where] ^= 1 << dice.randrange(8)
            case 2:
                damaged[where : where + dice.randrange(1, 9)] = b""
            case 3:
                damaged[where:where] = dice.randbytes(dice.randrange(1, 9))
            case 4:
                damaged[where : where + 4] = dice.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"))
        damaged = damaged or bytearray(b"\0")
    return bytes(damaged)


def run_length_bmp() -> bytes:
    """An 8-bit BMP of 16 x 2 pixels in the run-length coding that Pillow reads but does not write."""
    palette, data = bytes(range(256)) * 4, b"\x10\x05\0\0\0\x04abcd\x0c\x07\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, 16, 2, 1, 8, 1, len(data), 0, 0, 0, 0)
    offset = 14 + len(header) + len(palette)
    return struct.pack("<2sIHHI", b"BM", offset + len(data), 0, 0, offset) + header + palette + data


def _seeds(picture, encode):
    small = picture(24, 18)
    return {
        "jpeg": encode(small, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
        "progressive": encode(small, "JPEG", progressive=True),
        "png": encode(small, "PNG"),
        "palette": encode(small.quantize(16), "PNG", transparency=b"\0\x33"),
        "apng": encode(small, "PNG", save_all=True, append_images=[picture(24, 18, 1)]),
        "webp": encode(small, "WEBP"),
        "webp-alpha": encode(small.convert("RGBA"), "WEBP", save_all=True, append_images=[picture(24, 18, 1)]),
        "gif": encode(small, "GIF", save_all=True, append_images=[picture(24, 18, 1)]),
        "bmp": encode(small, "BMP"),
        "bmp-palette": encode(small.quantize(16), "BMP"),
        "bmp-rle": run_length_bmp(),
        "tiff": encode(small, "TIFF"),
        "tiff-lzw": encode(small, "TIFF", compression="tiff_lzw", save_all=True, append_images=[small]),
        "tiff-jpeg": encode(small, "TIFF", compression="jpeg"),
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_only_image_errors_come_out_of_damaged_files(seed, picture, encode, capfd):
    content, dice, slowest = _seeds(picture, encode)[seed], random.Random(seed), 0.0
    for _ in range(MUTANTS_PER_SEED):
        mutant, start = _mutant(content, dice), time.process_time()
        with contextlib.suppress(ImageError):
            assert load_image(mutant, limits=LIMITS).image.mode == "RGB"
        slowest = max(slowest, time.process_time() - start)
    assert slowest < 5
    assert capfd.readouterr().err == ""
