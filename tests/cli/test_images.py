"""Pictures as they are typed: a bad one is one line and no model, or one record of a batch."""

from __future__ import annotations

import http.server
import json
import os
import random
import shutil
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from command_line import Result, assert_is_error_line, vli
from PIL import Image

from vlinstruct import files
from vlinstruct.backends.instructblip.backend import InstructBlipBackend

ASKED = "what is it?"
INSTRUCTIONS = ("name the animal", "describe all of it, with its colours")


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def noise(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    content = random.Random(0).randbytes(width * height * len(mode))
    return Image.frombytes(mode, (width, height), content)


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG that announces a size and holds next to none of its pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(b"\0" * 10)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body


def cut_jpeg() -> bytes:
    content = encoded(noise(), "JPEG")
    return content[: len(content) // 2]


def png_with_a_bad_checksum() -> bytes:
    content = bytearray(encoded(noise(), "PNG"))
    content[content.index(b"IDAT") + 20] ^= 0xFF
    return bytes(content)


CONTENTS = {
    "I03_empty": (b"", "image_empty"),
    "I04_web_page": (b"<!DOCTYPE html><html>404</html>", "image_html"),
    "I05_lfs_pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "image_lfs_pointer"),
    "I06_header_only": (png(4, 4)[:33], "image_truncated"),
    "I06_no_pixels": (png(0, 0), "image_unreadable"),
    "I07_cut": (cut_jpeg(), "image_truncated"),
    "I08_bad_checksum": (png_with_a_bad_checksum(), "image_damaged"),
    "I09_400_megapixels": (png(20_000, 20_000), "image_too_large"),
    "I10_169_megapixels": (png(13_000, 13_000), "image_too_large"),
    "I11_text_bomb": (
        png(4, 4, png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 50_000_000, 1))),
        "image_metadata_too_large",
    ),
    "I15_tiff_without_an_end": (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "image_unreadable"),
    "I20_float_pixels": (encoded(Image.new("F", (8, 8), 1e6), "TIFF"), "image_pixel_range"),
    "I22_postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "image_format"),
    "I23_pdf_called_png": (b"%PDF-1.7\n", "image_format"),
}


def make_loop(path: Path) -> None:
    path.symlink_to(path.with_suffix(".b"))
    path.with_suffix(".b").symlink_to(path)


def make_huge(path: Path) -> None:
    with path.open("wb") as stream:
        stream.write(b"\xff\xd8\xff")
        stream.truncate(2 * 1024**3)


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "I01_missing": (lambda path: None, "image_missing"),
    "I25_loop_of_links": (make_loop, "image_symlink_loop"),
    "I26_pipe": (os.mkfifo, "image_not_regular"),
    "I29_two_gigabytes": (make_huge, "image_file_too_large"),
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


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("command", ["ask", "score", "optimize"])
def test_a_bad_picture_is_one_line_and_loads_no_model(command: str, case: str, tmp_path: Path, no_model: None) -> None:
    path, code = make_bad(case, tmp_path)
    arguments = [ASKED, path] if command == "optimize" else [path, ASKED]
    line = vli(command, *arguments).refusal(4)
    assert path.name[-20:] in line
    record = vli(command, *arguments, "--output", tmp_path / "out.jsonl", "--quiet")
    record.refusal(4)
    (written,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (written["status"], written["code"]) == ("error", code)
    assert f"error: {written['message']}" == line


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_bad_pictures_cost_one_record_each_and_change_no_other(
    kind: str, tiny_folders: dict[str, Path], pictures: Callable[..., list[Path]], tmp_path: Path
) -> None:
    good, bad = pictures(9), [make_bad(case, tmp_path) for case in CASES]
    codes = {str(path): code for path, code in bad}
    mixed = [*good, *codes]
    random.Random(kind).shuffle(mixed)
    in_order = [path for path in mixed if path in good]
    for batch_size in (1, 4):
        common = ["--backbone", tiny_folders[kind], "--batch-size", batch_size, "--quiet"]
        alone = vli("optimize", ASKED, *in_order, *common)
        together = vli("optimize", ASKED, *mixed, *common)
        (line,) = together.lines
        assert_is_error_line(line)
        assert (alone.exit_code, together.exit_code) == (0, 3)
        assert f"{len(bad)} of {len(mixed)} items failed" in line
        assert [record["id"] for record in together.records] == [str(path) for path in mixed]
        errors = {record["id"]: record["code"] for record in together.records if record["status"] == "error"}
        assert errors == codes
        ok = [line for line in together.stdout.splitlines() if json.loads(line)["status"] == "ok"]
        assert ok == alone.stdout.splitlines()


def test_a_batch_of_bad_pictures_alone_fails_as_a_whole_and_loads_no_model(tmp_path: Path, no_model: None) -> None:
    bad = [make_bad(case, tmp_path) for case in CASES]
    result = vli("ask", *(path for path, _ in bad), ASKED)
    assert result.exit_code == 4
    assert [record["code"] for record in result.records] == [code for _, code in bad]
    (line,) = result.lines
    assert_is_error_line(line)


def test_a_folder_is_a_batch_and_an_empty_one_is_nothing_to_do(picture: Path, tmp_path: Path, no_model: None) -> None:
    (tmp_path / "empty").mkdir()
    assert "nothing to do" in vli("ask", tmp_path / "empty", ASKED).refusal(4)
    assert "nothing to do" in vli("ask", tmp_path / "*.jpg", ASKED).refusal(4)
    assert "nothing to do" in vli("ask", picture, tmp_path / "empty", ASKED).refusal(4)


def test_max_pixels_is_the_largest_picture_that_is_read(picture: Path) -> None:
    with Image.open(picture) as image:
        width, height = image.size
    line = vli("score", picture, ASKED, "--max-pixels", width * height - 1).refusal(4)
    assert f"{width} x {height} pixels, at most {width * height - 1}" in line
    assert "--max-pixels" in line
    assert vli("score", picture, ASKED, "--max-pixels", width * height).text == vli("score", picture, ASKED).text


@pytest.mark.parametrize("command", ["ask", "score", "chat"])
def test_a_jpeg_that_was_cut_off_is_read_where_that_is_allowed(command: str, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.jpg", tmp_path / "cut.jpg"
    whole.write_bytes(encoded(noise(), "JPEG"))
    cut.write_bytes(whole.read_bytes()[:-2])

    def asked(picture: Path, *options: object) -> Result:
        words, stdin = ((), f"{ASKED}\n".encode()) if command == "chat" else ((ASKED,), b"")
        return vli(command, picture, *words, *options, stdin=stdin)

    assert "--allow-truncated" in asked(cut).refusal(4)
    read = asked(cut, "--allow-truncated")
    assert read.text == asked(whole).text
    assert read.lines == [f"notice: {cut}: it was cut off, only its end marker is missing"]


def animated(image: Image.Image, image_format: str, **options: Any) -> bytes:
    return encoded(image, image_format, save_all=True, append_images=[image.rotate(180)], **options)


def rotated(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[274] = 3  # upside down
    return encoded(image.transpose(Image.Transpose.ROTATE_180), "PNG", exif=exif)


PICTURE = noise()
SAME_PICTURE = {
    "I13_animated_png": (animated(PICTURE, "PNG"), 1),
    "I13_animated_webp": (animated(PICTURE, "WEBP", lossless=True), 1),
    "I14_pages": (animated(PICTURE, "TIFF"), 1),
    "I16_upside_down": (rotated(PICTURE), 0),
    "I17_orientation_out_of_range": (
        encoded(PICTURE, "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0"),
        0,
    ),
    "I18_transparency_of_none": (encoded(PICTURE.convert("RGBA"), "PNG"), 0),
    "I23_tiff_called_png": (encoded(PICTURE, "TIFF"), 0),
    "I24_trailing_bytes": (encoded(PICTURE, "PNG") + b"<?php ?>" * 1000, 0),
}


@pytest.mark.parametrize("case", SAME_PICTURE)
def test_the_same_picture_in_other_clothes_gives_the_same_bytes(case: str, tmp_path: Path) -> None:
    content, num_notices = SAME_PICTURE[case]
    (tmp_path / "plain.png").write_bytes(encoded(PICTURE, "PNG"))
    (tmp_path / "a.png").write_bytes(content)
    (tmp_path / "other.png").write_bytes(encoded(PICTURE.rotate(90), "PNG"))
    result = vli("score", tmp_path / "a.png", *INSTRUCTIONS)
    assert result.stdout == vli("score", tmp_path / "plain.png", *INSTRUCTIONS).stdout
    assert result.stdout != vli("score", tmp_path / "other.png", *INSTRUCTIONS).stdout
    assert len(result.lines) == num_notices
    assert all(line.startswith("notice: ") and "only the first one" in line for line in result.lines)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P", "1", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (9, 1), (1, 2000)])
def test_every_kind_and_shape_of_picture_is_answered(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    Image.new(mode, size, 1).save(tmp_path / "a.tif")
    assert vli("score", tmp_path / "a.tif", ASKED).text


def test_links_out_of_a_folder_are_followed_only_on_request(picture: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    shutil.copy(picture, tmp_path / "folder" / "own.png")
    (tmp_path / "folder" / "link.png").symlink_to(picture)
    kept = vli("score", tmp_path / "folder", ASKED)
    assert [Path(record["image"]).name for record in kept.records] == ["own.png"]
    (line,) = kept.lines
    assert "1 skipped" in line
    assert "--follow-symlinks" in line
    followed = vli("score", tmp_path / "folder", ASKED, "--follow-symlinks")
    assert [Path(record["image"]).name for record in followed.records] == ["link.png", "own.png"]


def test_a_picture_without_permission_is_one_line(
    picture: Path, no_model: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object) -> int:  # root may read everything: the system's answer is played
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "open", deny)
    assert "permission denied" in vli("ask", picture, ASKED).refusal(4)


def test_a_picture_that_vanishes_during_the_run_fails_alone(
    pictures: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third, fourth = pictures(4)
    whole = vli("optimize", ASKED, first, second, third, fourth)
    original = InstructBlipBackend.see

    def see_and_delete(self: InstructBlipBackend, images: Any) -> Any:
        third.unlink(missing_ok=True)  # the second is being read ahead
        return original(self, images)

    monkeypatch.setattr(InstructBlipBackend, "see", see_and_delete)
    result = vli("optimize", ASKED, first, second, third, fourth)
    assert result.exit_code == 3
    assert [record.get("code") for record in result.records] == [None, None, "image_missing", None]
    assert result.stdout.splitlines()[::3] == whole.stdout.splitlines()[::3]


def test_a_picture_named_twice_is_read_once_and_said(picture: Path, num_seen: list[int]) -> None:
    result = vli("ask", picture, picture, ASKED)
    assert result.stdout == vli("ask", picture, ASKED).stdout
    assert num_seen == [1, 1]
    assert result.lines == ["notice: 1 skipped: named twice"]


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch, picture: Path) -> Iterator[str]:
    """Serves the picture as /a.png on this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = picture.read_bytes() if self.path.startswith("/a.png") else b"<html>404</html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_address(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address of this machine at which nobody listens."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_a_typed_url_is_fetched_and_answered_like_the_file(address: str, picture: Path) -> None:
    typed = vli("score", f"http://{address}/a.png?signature=s3cret", ASKED)
    assert typed.text == vli("score", picture, ASKED).text
    page = vli("score", f"http://me:pass@{address}/b.png?signature=s3cret", ASKED).refusal(4)
    assert "looks like HTML" in page
    assert "pass" not in page
    assert "s3cret" not in page


def test_a_url_that_cannot_be_fetched_is_a_network_error(closed_address: str, picture: Path, no_model: None) -> None:
    url = f"http://me:s3cret@{closed_address}/a.png"
    line = vli("ask", url, ASKED).refusal(9)
    assert "refused the connection" in line
    assert "s3cret" not in line
    assert "--offline" in vli("ask", url, ASKED, "--offline").refusal(9)
    assert "--offline" in vli("ask", picture, url, ASKED, "--offline").refusal(9)


def test_a_url_that_cannot_be_fetched_fails_alone(closed_address: str, picture: Path) -> None:
    result = vli("ask", f"http://{closed_address}/a.png", picture, ASKED)
    assert result.exit_code == 3
    assert [record.get("code") for record in result.records] == ["url_no_connection", None]
    assert result.stdout.splitlines(keepends=True)[1] == vli("ask", picture, ASKED, "--json").stdout


@pytest.mark.parametrize("url", ["data:image/png;base64,iVBORw0KGgo=", "ftp://example.org/a.png", "file:///etc/passwd"])
def test_other_urls_are_never_read(url: str, picture: Path, no_model: None) -> None:
    assert "URLs are not read" in vli("ask", url, ASKED).refusal(4)
    assert "URLs are not read" in vli("ask", picture, url, ASKED).refusal(4)


def test_stdin_is_a_picture_like_any_other(picture: Path) -> None:
    piped = vli("score", "-", ASKED, stdin=picture.read_bytes())
    assert piped.text == vli("score", picture, ASKED).text


@pytest.mark.parametrize(("content", "why"), [(b"", "stdin is empty"), (b"<html>", "looks like HTML")])
def test_stdin_that_holds_no_picture_is_one_line(content: bytes, why: str, no_model: None) -> None:
    assert why in vli("ask", "-", ASKED, stdin=content).refusal(4)


def test_pixels_that_are_not_finite_stop_the_run(
    tiny_folders: dict[str, Path], pictures: Callable[..., list[Path]], tmp_path: Path
) -> None:
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_folders["t5"], folder)
    values = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**values, "image_std": [0, 0, 0]}))
    result: Result = vli("ask", *pictures(2), ASKED, "--backbone", folder)
    assert "image_std" in result.refusal(5)
