"""Pictures that cannot be read, each with the code of its error, and what they are made with."""

from __future__ import annotations

import os
import random
import socket
import tempfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from picture_fixtures import make_png as png
from picture_fixtures import make_png_chunk as png_chunk
from PIL import Image


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def noise(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    content = random.Random(0).randbytes(width * height * len(mode))
    return Image.frombytes(mode, (width, height), content)


def cut_jpeg(share: float) -> bytes:
    content = encoded(noise(160, 120), "JPEG")
    return content[: int(len(content) * share)]


def png_with_a_bad_checksum() -> bytes:
    content = bytearray(encoded(noise(), "PNG"))
    content[content.index(b"IDAT") + 20] ^= 0xFF
    return bytes(content)


CONTENTS = {
    "empty": (b"", "image_empty"),
    "web_page": (b"<!DOCTYPE html><html>404</html>", "image_html"),
    "lfs_pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "image_lfs_pointer"),
    "header_only": (png(4, 4)[:33], "image_truncated"),
    "no_pixels": (png(0, 0), "image_unreadable"),
    **{
        f"cut_at_{100 * share:g}_percent": (cut_jpeg(share), "image_truncated")
        for share in (0.05, 0.3, 0.5, 0.9, 0.999)
    },
    "bad_checksum": (png_with_a_bad_checksum(), "image_damaged"),
    "400_megapixels": (png(20_000, 20_000), "image_too_large"),
    "169_megapixels": (png(13_000, 13_000), "image_too_large"),
    "text_bomb": (
        png(4, 4, png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 50_000_000, 1))),
        "image_metadata_too_large",
    ),
    "tiff_whose_pages_form_a_circle": (
        b"II*\0\x08\0\0\0\x01\0\0\x01\x03\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
        "image_unreadable",
    ),
    "tiff_without_an_end": (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "image_unreadable"),
    "float_pixels": (encoded(Image.new("F", (8, 8), 1e6), "TIFF"), "image_pixel_range"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "image_format"),
    "pdf_called_png": (b"%PDF-1.7\n", "image_format"),
}


def make_loop(path: Path) -> None:
    path.symlink_to(path.with_suffix(".b"))
    path.with_suffix(".b").symlink_to(path)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")  # a link, since making a device takes root


def make_socket(path: Path) -> None:
    # Bound by a short name and moved: an address of a socket has 108 bytes, and the test's folder may have more.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/s")
        os.rename(f"{folder}/s", path)


def make_huge(path: Path) -> None:
    with path.open("wb") as stream:
        stream.write(b"\xff\xd8\xff")
        stream.truncate(2 * 1024**3)


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "image_missing"),
    "loop_of_links": (make_loop, "image_symlink_loop"),
    "pipe": (os.mkfifo, "image_not_regular"),
    "device": (make_device, "image_not_regular"),
    "socket": (make_socket, "image_not_regular"),
    "two_gigabytes": (make_huge, "image_file_too_large"),
}
CASES = [*CONTENTS, *PLACES]


def make_bad(case: str, folder: Path) -> tuple[Path, str]:
    """Writes a bad picture and returns its path and the code of its error."""
    path = folder / f"{case}.png"
    if case in CONTENTS:
        content, code = CONTENTS[case]
        path.write_bytes(content)
    else:
        make, code = PLACES[case]
        make(path)
    return path, code
