"""Pictures as they are typed: a bad one is one line and no model, or one record of a batch."""

from __future__ import annotations

import http.server
import json
import random
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Result, assert_is_error_line, vli
from PIL import Image

from vlinstruct import files
from vlinstruct.backends.instructblip.backend import InstructBlipBackend

from .bad_pictures import CASES, encoded, make_bad, noise

ASKED = "what is it?"
INSTRUCTIONS = ("name the animal", "describe all of it, with its colours")


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


@pytest.mark.slow
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


def test_a_folder_that_a_line_names_as_a_picture_fails_alone(
    pictures: Callable[..., list[Path]], tmp_path: Path
) -> None:
    pictures(1)
    items = [{"image": image, "question": ASKED} for image in ("pictures", "pictures/000.png")]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    result = vli("ask", "--data", tmp_path / "items.jsonl")
    assert result.exit_code == 3
    assert [record.get("code") for record in result.records] == ["image_is_directory", None]


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
    "animated_png": (animated(PICTURE, "PNG"), 1),
    "animated_webp": (animated(PICTURE, "WEBP", lossless=True), 1),
    "pages": (animated(PICTURE, "TIFF"), 1),
    "upside_down": (rotated(PICTURE), 0),
    "orientation_out_of_range": (
        encoded(PICTURE, "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0"),
        0,
    ),
    "transparency_of_none": (encoded(PICTURE.convert("RGBA"), "PNG"), 0),
    "tiff_called_png": (encoded(PICTURE, "TIFF"), 0),
    "trailing_bytes": (encoded(PICTURE, "PNG") + b"<?php ?>" * 1000, 0),
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


def test_a_gif_whose_second_frame_would_be_huge_is_answered_by_its_first(tmp_path: Path) -> None:
    still = PICTURE.convert("P")
    (tmp_path / "still.gif").write_bytes(encoded(still, "GIF"))
    content = bytearray(animated(still, "GIF"))
    second = content.rindex(b"\x2c\0\0\0\0")  # where a frame's description begins: its place, its width and height
    assert second > content.index(b"\x2c\0\0\0\0")
    content[second + 5 : second + 9] = b"\xff\xff\xff\xff"
    (tmp_path / "a.gif").write_bytes(content)
    result = vli("score", tmp_path / "a.gif", *INSTRUCTIONS)
    assert result.text == vli("score", tmp_path / "still.gif", *INSTRUCTIONS).text
    assert result.lines == [f"notice: {tmp_path / 'a.gif'}: it has several frames, only the first one is used"]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P", "1", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (9, 1), (1, 2000)])
def test_every_kind_and_shape_of_picture_is_answered(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    Image.new(mode, size, 1).save(tmp_path / "a.tif")
    assert vli("score", tmp_path / "a.tif", ASKED).text


@pytest.mark.parametrize("size", [(1, 65_000), (65_000, 1)])
def test_a_picture_of_one_line_of_pixels_is_answered(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    assert vli("score", tmp_path / "a.png", ASKED).text


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


def test_a_picture_without_permission_fails_alone(
    pictures: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pictures(2)
    original = files.os.open

    def deny(path: Any, *how: Any) -> int:  # root may read everything: the system's answer is played
        if str(path) == str(first):
            raise PermissionError(13, "Permission denied")
        return original(path, *how)

    monkeypatch.setattr(files.os, "open", deny)
    assert "permission denied" in vli("ask", first, ASKED).refusal(4)
    result = vli("ask", first, second, ASKED)
    assert result.exit_code == 3
    assert [record.get("code") for record in result.records] == ["image_permission", None]


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


def test_copies_of_a_picture_get_the_same_record(picture: Path) -> None:
    copies = [Path(shutil.copy(picture, picture.with_name(f"copy-{number}.png"))) for number in range(3)]
    records = vli("optimize", ASKED, picture, *copies).records
    for record in records:
        record.pop("id"), record.pop("image")
    assert records == [records[0]] * 4


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
