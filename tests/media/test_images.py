"""Whatever is named as a picture is read right or refused in one line."""

import os
import random
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image, ImageFile

from vlinstruct import files
from vlinstruct.errors import ImageError, UsageError
from vlinstruct.media.images import ImageLimits, load_image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@pytest.fixture
def undecoded(monkeypatch):
    """Fails the test when Pillow is asked for a picture's pixels."""
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("pixels were decoded"))


@pytest.mark.parametrize("image_format", FORMATS)
def test_path_and_bytes_give_the_same_rgb_picture(image_format, picture, encode, image_file):
    content = encode(picture(), image_format)
    loaded = load_image(image_file("x.bin", content))
    assert loaded.image.mode == "RGB"
    assert loaded.image.size == (64, 48)
    assert loaded.image_format == image_format
    assert loaded.notices == ()
    assert loaded.image.tobytes() == load_image(content).image.tobytes()
    if image_format in ("PNG", "BMP", "TIFF"):
        assert loaded.image.tobytes() == picture().tobytes()


def test_missing_file(tmp_path, refused):
    error = refused(ImageError, "image_missing", load_image, tmp_path / "nosuch.jpg")
    assert "no such file" in error.message
    assert "nosuch.jpg" in error.message
    refused(ImageError, "image_missing", load_image, tmp_path / "a.jpg" / "b.jpg")


def test_path_below_a_file(image_file, refused):
    refused(ImageError, "image_missing", load_image, image_file() / "b.jpg")


def test_directory(tmp_path, refused):
    assert "is a directory" in refused(ImageError, "image_is_directory", load_image, tmp_path).message


def test_empty_file(image_file, refused):
    assert "empty file" in refused(ImageError, "image_empty", load_image, image_file("a.jpg", b"")).message
    refused(ImageError, "image_empty", load_image, b"")


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>404</html>", b"\n  <HTML><head>", b"<html lang=en>"])
def test_html_is_named(content, image_file, refused):
    error = refused(ImageError, "image_html", load_image, image_file("a.jpg", content))
    assert "looks like HTML" in error.message


@pytest.mark.parametrize("content", [b"404 not found", b'{"error": "no such key"}', b"\n" * 40])
def test_text_is_named(content, image_file, refused):
    assert "looks like text" in refused(ImageError, "image_text", load_image, image_file("a.jpg", content)).message


def test_lfs_pointer(image_file, refused):
    content = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    error = refused(ImageError, "image_lfs_pointer", load_image, image_file("a.png", content))
    assert "Run git lfs pull" in error.message


def test_header_only_and_no_pixels(png, image_file, refused):
    refused(ImageError, "image_truncated", load_image, image_file("a.png", png(4, 4)[:33]))
    refused(ImageError, "image_truncated", load_image, b"\x89PNG\r\n\x1a\n")
    refused(ImageError, "image_unreadable", load_image, png(0, 0))
    refused(ImageError, "image_unreadable", load_image, random.Random(1).randbytes(64))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_truncated_jpeg_is_named(share, options, picture, encode, refused):
    content = encode(picture(160, 120), "JPEG", quality=95, **options)
    error = refused(ImageError, "image_truncated", load_image, content[: int(len(content) * share)])
    assert "truncated image" in error.message
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_cut_file_is_refused_or_complete(image_format, picture, encode):
    content = encode(picture(40, 30), image_format)
    whole = load_image(content).image.tobytes()
    for length in [*range(1, len(content), 97), *range(len(content) - 40, len(content))]:
        try:
            assert load_image(content[:length]).image.tobytes() == whole, length
        except ImageError:
            continue


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"])
def test_a_cut_compressed_tiff_is_refused_or_complete(compression, picture, encode, capfd):
    content = encode(picture(40, 30), "TIFF", compression=compression)
    whole = load_image(content).image.tobytes()
    for length in range(8, len(content), 41):
        try:
            assert load_image(content[:length]).image.tobytes() == whole, length
        except ImageError:
            continue
    assert capfd.readouterr().err == ""


def test_bad_crc_and_broken_stream(picture, encode, refused):
    content = bytearray(encode(picture(), "PNG"))
    broken = content.copy()
    broken[content.index(b"IDAT") + 20] ^= 0xFF
    assert "damaged image" in refused(ImageError, "image_damaged", load_image, bytes(broken)).message
    content[content.index(b"IDAT") - 9] ^= 0xFF  # a byte of the header's checksum
    refused(ImageError, "image_unreadable", load_image, bytes(content))


def test_400_megapixels_are_refused_from_the_header(png, refused):
    content = png(20_000, 20_000)
    assert len(content) < 100
    load_image(png(1, 1))  # imports are no part of the measurement
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = refused(ImageError, "image_too_large", load_image, content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
    assert "pixels" in error.message


@pytest.mark.parametrize("side", [10_001, 13_000])  # Pillow says nothing to the first, only warns of the second
def test_our_own_cap_comes_before_pillows(side, png, refused):
    error = refused(ImageError, "image_too_large", load_image, png(side, side))
    assert f"{side} x {side} pixels, at most 50,000,000" in error.message


def test_the_cap_is_an_option(picture, encode, refused):
    content = encode(picture(), "PNG")
    refused(ImageError, "image_too_large", load_image, content, limits=ImageLimits(max_pixels=64 * 48 - 1))
    assert load_image(content, limits=ImageLimits(max_pixels=64 * 48)).image.size == (64, 48)
    with pytest.raises(UsageError, match=r"max_pixels must be 1 to 178956970.*; max_bytes must be at least 1"):
        ImageLimits(max_pixels=10**9, max_bytes=0)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "BMP", "TIFF", "JPEG"])
def test_every_format_is_refused_from_its_header(image_format, picture, encode, refused, undecoded):
    content = encode(picture(), image_format)
    refused(ImageError, "image_too_large", load_image, content, limits=ImageLimits(max_pixels=100))


@pytest.mark.parametrize(("width", "trailing"), [(20_000_000, 0), (16, 12_000_000)])
def test_a_run_length_bmp_that_would_take_seconds_is_refused(width, trailing, refused, undecoded):
    palette, data = bytes(1024), b"\0\0" + b"\0" * trailing
    header = struct.pack("<IiiHHIIiiII", 40, width, 1, 1, 8, 1, len(data), 0, 0, 0, 0)
    offset = 14 + len(header) + len(palette)
    content = struct.pack("<2sIHHI", b"BM", offset + len(data), 0, 0, offset) + header + palette + data
    error = refused(ImageError, "image_too_large", load_image, content)
    assert "run-length" in error.message


@pytest.mark.parametrize("chunk", [b"zTXt", b"iTXt"])
def test_text_bomb(chunk, png, png_chunk, refused):
    import zlib

    bomb = zlib.compress(b"\0" * 20_000_000)
    head = b"a\0\0" if chunk == b"zTXt" else b"a\0\1\0\0\0"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(ImageError, "image_metadata_too_large", load_image, png(8, 8, png_chunk(chunk, head + bomb)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_second_gif_frame_is_never_decoded(picture, encode):
    frames = [picture(16, 16, seed).convert("P") for seed in (0, 1)]
    content = bytearray(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    second = content.rindex(b"\x2c\0\0\0\0\x10\0\x10\0")
    content[second + 5 : second + 9] = b"\xff\xff\xff\xff"
    loaded = load_image(bytes(content))
    assert loaded.image.size == (16, 16)
    assert "only the first one is used" in loaded.notices[0]


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_or_page_with_one_notice(image_format, picture, encode, image_file):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if image_format == "WEBP" else {}
    content = encode(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    loaded = load_image(image_file("many.png", content))
    part = "pages" if image_format == "TIFF" else "frames"
    assert loaded.image.getpixel((3, 3)) == (255, 0, 0)
    assert len(loaded.notices) == 1
    assert f"many.png: it has several {part}, only the first one is used" in loaded.notices[0]


def _tiff_of_ifds(next_offset: bytes) -> bytes:
    return b"II*\0\x08\0\0\0" + b"\x01\0" + b"\x00\x01\x03\0\x01\0\0\0\x08\0\0\0" + next_offset


@pytest.mark.parametrize("next_offset", [b"\x08\0\0\0", b"\xff\xff\xff\xff", b"\x0a\0\0\0"])
def test_malformed_tiff_ends_soon(next_offset, refused):
    start = time.process_time()
    with pytest.raises(ImageError):
        load_image(_tiff_of_ifds(next_offset))
    assert time.process_time() - start < 5  # following the circle would never end


def test_tiff_with_a_long_chain_of_pages_ends_soon(encode, picture):
    content = encode(picture(), "TIFF")
    start = int.from_bytes(content[4:8], "little")
    entries = int.from_bytes(content[start : start + 2], "little")
    link = start + 2 + 12 * entries
    chain = b"".join(b"\0\0" + (len(content) + 6 * (n + 1)).to_bytes(4, "little") for n in range(200_000))
    chained = content[:link] + len(content).to_bytes(4, "little") + content[link + 4 :] + chain
    began = time.process_time()
    assert load_image(chained).image.tobytes() == picture().tobytes()
    assert time.process_time() - began < 5


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_all_eight_orientations_give_the_same_pixels(image_format, encode):
    upright = Image.new("RGB", (32, 16), "white")
    upright.paste("red", (0, 0, 16, 8))
    upright.paste("blue", (16, 8, 32, 16))
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Transpose values that undo each orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(image_format, {})
    for orientation in range(1, 9):
        stored = upright if orientation == 1 else upright.transpose(Image.Transpose(inverse[orientation]))
        exif = Image.Exif()
        exif[274] = orientation
        loaded = load_image(encode(stored, image_format, exif=exif, **options)).image
        assert loaded.size == (32, 16), orientation
        for place, colour in {(4, 4): (255, 0, 0), (28, 12): (0, 0, 255), (28, 4): (255, 255, 255)}.items():
            assert max(abs(a - b) for a, b in zip(loaded.getpixel(place), colour, strict=True)) < 8, orientation


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",  # orientation 99
        b"Exif\0\0II*\0\xff\xff\xff\x7f",  # directory past the end
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01",  # cut within the directory
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abcd\0\0\0\0",  # orientation as text
    ],
)
def test_bad_exif_is_ignored(exif, picture, encode):
    content = encode(picture(), "JPEG", exif=exif)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = load_image(content).image
    assert caught == []
    assert loaded.tobytes() == load_image(encode(picture(), "JPEG")).image.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 65_000), (65_000, 1)])
def test_extreme_sizes_are_read(size, encode):
    assert load_image(encode(Image.new("RGB", size, "red"), "PNG")).image.size == size


OTHER_FORMATS = {
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "PostScript"),
    "SVG": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "PDF": (b"%PDF-1.7\n", "PDF"),
    "PSD": (b"8BPS\0\1" + b"\0" * 40, "Photoshop"),
    "FITS": (b"SIMPLE  =                    T", "FITS"),
    "FPX": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 40, "FlashPix"),
    "DDS": (b"DDS |\0\0\0" + b"\0" * 40, "DDS"),
    "J2K": (b"\xff\x4f\xff\x51" + b"\0" * 40, "JPEG 2000"),
    "JP2": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    "AVIF": (b"\0\0\0\x20ftypavif" + b"\0" * 20, "AVIF"),
    "HEIC": (b"\0\0\0\x20ftypheic" + b"\0" * 20, "HEIF"),
    "MP4": (b"\0\0\0\x20ftypisom" + b"\0" * 20, "video"),
    "ICO": (b"\0\0\1\0\1\0", "icon"),
    "ZIP": (b"PK\3\4" + b"\0" * 20, "archive"),
    "PPM": (b"P6 2 2 255\n" + b"\0" * 12, "PNM"),
}


@pytest.mark.parametrize("kind", OTHER_FORMATS)
@pytest.mark.parametrize("name", ["a.jpg", "a.eps"])
def test_other_formats_are_refused_by_content(kind, name, image_file, refused):
    content, called = OTHER_FORMATS[kind]
    error = refused(ImageError, "image_format", load_image, image_file(name, content))
    assert f"its format is {called}" in error.message or called in error.message


def test_no_other_decoder_is_ever_tried(picture, encode, monkeypatch):
    tried = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda *args, formats: tried.append(formats) or real(*args, formats=formats))
    load_image(encode(picture(), "TIFF"))
    with pytest.raises(ImageError):
        load_image(OTHER_FORMATS["EPS"][0])
    assert tried == [["TIFF"]]


def test_content_decides_not_the_name(picture, encode, image_file):
    loaded = load_image(image_file("a.png", encode(picture(), "TIFF")))
    assert loaded.image_format == "TIFF"
    assert loaded.image.tobytes() == picture().tobytes()


@pytest.mark.parametrize("image_format", FORMATS)
def test_trailing_data_is_ignored(image_format, picture, encode):
    content = encode(picture(), image_format)
    whole = load_image(content).image.tobytes()
    assert load_image(content + b"<?php system($_GET[0]); ?>" * 40_000).image.tobytes() == whole


def test_symlink_loop(tmp_path, refused):
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert "loop" in refused(ImageError, "image_symlink_loop", load_image, tmp_path / "a.png").message


def test_pipes_devices_and_sockets_are_refused_without_a_hang(tmp_path, refused):
    os.mkfifo(tmp_path / "fifo.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.png"))
        for path in (tmp_path / "fifo.png", "/dev/zero", tmp_path / "s.png"):
            assert "not a regular file" in refused(ImageError, "image_not_regular", load_image, path).message


def test_a_file_swapped_for_a_pipe_is_refused_without_a_hang(tmp_path, image_file, refused, monkeypatch):
    path, fifo = image_file(), tmp_path / "fifo"
    os.mkfifo(fifo)
    real = os.open
    monkeypatch.setattr(files.os, "open", lambda _, flags: real(fifo, flags))
    refused(ImageError, "image_not_regular", load_image, path)


def test_no_permission(image_file, refused, monkeypatch):
    path = image_file()
    path.chmod(0)
    if os.geteuid() == 0:  # root reads everything: the system's answer is played

        def deny(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(files.os, "open", deny)
    assert "permission denied" in refused(ImageError, "image_permission", load_image, path).message


def test_file_deleted_between_look_and_open(image_file, refused, monkeypatch):
    path = image_file()
    real = os.stat

    def stat_then_delete(target):
        status = real(target)
        path.unlink()
        return status

    monkeypatch.setattr(files.os, "stat", stat_then_delete)
    refused(ImageError, "image_missing", load_image, path)


@pytest.mark.parametrize("change", [-10, 10])
def test_file_changed_while_read(change, image_file, refused, monkeypatch):
    path = image_file()
    real = os.fstat

    def other_size(descriptor):
        status = real(descriptor)
        os.truncate(path, status.st_size + change) if status.st_size > 100 else None
        monkeypatch.setattr(files.os, "fstat", lambda _: status)
        return status

    monkeypatch.setattr(files.os, "fstat", other_size)
    assert "changed" in refused(ImageError, "image_changed", load_image, path).message


def test_large_file_is_refused_before_it_is_read(tmp_path, refused):
    path = tmp_path / "big.jpg"
    with path.open("wb") as stream:
        stream.write(b"\xff\xd8\xff")
        stream.truncate(2 * 1024**3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = refused(ImageError, "image_file_too_large", load_image, path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
    assert "2,147,483,648 bytes" in error.message
    refused(ImageError, "image_file_too_large", load_image, b"\xff\xd8\xff", limits=ImageLimits(max_bytes=2))


def test_many_threads_read_the_same_and_no_warning_leaks(picture, encode):
    content = encode(picture(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    whole = load_image(content).image.tobytes()
    filters, cap = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _: load_image(content).image.tobytes(), range(200)))
    assert set(results) == {whole}
    assert list(warnings.filters) == filters
    assert cap == Image.MAX_IMAGE_PIXELS


def test_warnings_of_others_are_heard_while_a_picture_is_read(picture, encode, monkeypatch):
    def load_and_warn(self):
        warnings.warn("mine", UserWarning, stacklevel=1)
        return real(self)

    real = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", load_and_warn)
    with pytest.warns(UserWarning, match="mine"):
        load_image(encode(picture(), "BMP"))


def test_nul_and_lone_surrogates_in_a_path(refused):
    refused(ImageError, "image_bad_path", load_image, "a.png\0.jpg")
    refused(ImageError, "image_bad_path", load_image, "a\ud800.png")


def test_long_and_hostile_names_stay_one_line(refused):
    refused(ImageError, "image_bad_path", load_image, "x" * 5000 + ".png")
    error = refused(ImageError, "image_missing", load_image, "a\x1b[2J\n\u202egnp.png")
    assert r"a\x1b[2J\n\u202egnp.png" in error.message
    error = refused(ImageError, "image_missing", load_image, "/".join(["deep"] * 100) + "/end.png")
    assert "/end.png" in error.message


def test_no_log_line_of_pillow_reaches_stderr(picture, encode):
    content = encode(picture(), "TIFF")
    too_many_samples = content.replace(b"\x15\x01\x03\0\x01\0\0\0\x03\0", b"\x15\x01\x03\0\x01\0\0\0\0\x60")
    assert too_many_samples != content
    script = f"""
from vlinstruct.media.images import load_image
from vlinstruct.errors import ImageError
try:
    load_image({too_many_samples!r})
except ImageError as error:
    print(error.code)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "image_unreadable\n"
    assert result.stderr == ""


def test_no_memory_is_told(picture, encode, refused, monkeypatch):
    def no_memory(self):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", no_memory)
    refused(ImageError, "image_out_of_memory", load_image, encode(picture(), "BMP"))


def test_pillows_own_words_are_never_shown(picture, encode, refused, monkeypatch):
    def complain(self):
        raise OSError("cannot identify <_io.BytesIO object at 0x7f0000>")

    monkeypatch.setattr(ImageFile.ImageFile, "load", complain)
    error = refused(ImageError, "image_damaged", load_image, encode(picture(), "BMP"), name="b.bmp")
    assert error.message == "cannot read image (b.bmp): damaged image. Copy or download it again"
    assert threading.active_count() >= 1
