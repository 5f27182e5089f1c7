"""A picture's header alone says whether a training would refuse it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import ImageFile

from vlinstruct.errors import ImageError, VlinstructError
from vlinstruct.media.images import ImageLimits, check_image_header, load_image

Refused = Callable[..., VlinstructError]
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@pytest.fixture
def nothing_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: ImageFile.ImageFile) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)


@pytest.mark.usefixtures("nothing_is_decoded")
@pytest.mark.parametrize("image_format", FORMATS)
def test_sound_pictures_pass_undecoded(
    image_format: str, image_file: Callable[..., Path], picture: Callable[..., object], encode: Callable[..., bytes]
) -> None:
    check_image_header(image_file("a", encode(picture(), image_format)))


def test_a_large_picture_is_refused_by_its_header(
    image_file: Callable[..., Path], png: Callable[..., bytes], refused: Refused
) -> None:
    refused(ImageError, "image_too_large", check_image_header, image_file(content=png(9_000, 9_000)))
    refused(ImageError, "image_too_large", check_image_header, image_file(content=png(60_000, 60_000)))
    path = image_file(content=png(30, 20))
    refused(ImageError, "image_file_too_large", check_image_header, path, limits=ImageLimits(max_bytes=10))


CONTENTS = {
    "empty": b"",
    "text": b"no picture",
    "html": b"<html>",
    "lfs": b"version https://git-lfs",
    "gzip": b"\x1f\x8b",
}


@pytest.mark.parametrize("case", CONTENTS)
def test_what_is_no_picture_is_refused_as_when_it_is_loaded(
    case: str, image_file: Callable[..., Path], refused: Refused
) -> None:
    path = image_file(content=CONTENTS[case])
    with pytest.raises(ImageError) as loaded:
        load_image(path)
    assert refused(ImageError, loaded.value.code, check_image_header, path).message == loaded.value.message


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_damaged_header_is_named(
    image_format: str,
    image_file: Callable[..., Path],
    picture: Callable[..., object],
    encode: Callable[..., bytes],
    refused: Refused,
) -> None:
    path = image_file(content=encode(picture(), image_format)[:12])
    error = refused(ImageError, "image_unreadable", check_image_header, path)
    assert f"its {image_format} header is damaged" in error.message


def test_what_is_no_file_is_refused_without_a_hang(tmp_path: Path, refused: Refused) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(ImageError, "image_not_regular", check_image_header, tmp_path / "pipe")
    refused(ImageError, "image_missing", check_image_header, tmp_path / "no.png")
    refused(ImageError, "image_is_directory", check_image_header, tmp_path)
