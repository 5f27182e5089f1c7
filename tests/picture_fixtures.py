"""Pictures made by code with fixed seeds: no binary lies in git."""

import random
import re
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from vlinstruct.errors import VlinstructError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def make_picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    noise = random.Random(seed).randbytes(width * height * 3)
    return Image.frombytes("RGB", (width, height), noise)


def encode_picture(image: Image.Image, image_format: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def make_png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def make_png(width: int, height: int, *chunks: bytes) -> bytes:
    header = make_png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = make_png_chunk(b"IDAT", zlib.compress(b"\0" * 10)) + make_png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body


def assert_one_line(error: VlinstructError) -> None:
    """The contract of every message: one short printable line, `what (place): why. advice`, no address."""
    message = error.message
    assert len(message) <= 300 - len("error: ")
    assert message.isprintable() or not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", message)
    assert "0x" not in message
    assert "Traceback" not in message
    assert re.fullmatch(r"[a-z ]+ \(.+\): .+\. .+", message), message
    assert re.fullmatch(r"[a-z0-9_]+", error.code)


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    return make_picture


@pytest.fixture
def encode() -> Callable[..., bytes]:
    return encode_picture


@pytest.fixture
def png() -> Callable[..., bytes]:
    return make_png


@pytest.fixture
def png_chunk() -> Callable[[bytes, bytes], bytes]:
    return make_png_chunk


@pytest.fixture
def refused() -> Callable[..., VlinstructError]:
    """Calls a function that must raise one of our errors, checks its line and code, and returns it."""

    def call(
        expected: type[VlinstructError], code: str, function: Callable[..., object], *args: object, **kwargs: object
    ):
        with pytest.raises(expected) as caught:
            function(*args, **kwargs)
        assert_one_line(caught.value)
        assert caught.value.code == code, caught.value.message
        return caught.value

    return call


@pytest.fixture
def image_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a picture (or given bytes) to a path below the test's folder and returns the path."""

    def write(name: str = "a.png", content: bytes | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_picture(make_picture(), "PNG") if content is None else content)
        return path

    return write
