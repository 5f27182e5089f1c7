"""The frames that were meant, by time; everything else about a clip is one line."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clip_fixtures import MOMENT_S, grey, place_of, write_clip
from picture_fixtures import assert_one_line, encode_picture, make_picture
from PIL import Image

from vlinstruct.errors import ClipError, ResourceError, UsageError
from vlinstruct.media import clips
from vlinstruct.media.clips import ClipLimits, load_clip
from vlinstruct.settings import MAX_FRAMES, ClipSettings

CODECS = {"mp4": "libx264", "mov": "libx264", "mkv": "libx264", "webm": "libvpx", "avi": "mpeg4", "ts": "libx264"}
FAST_START = {"movflags": "faststart"}
_IDENTITY = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def places(path: Path | bytes, **settings: float) -> list[int]:
    return list(map(place_of, load_clip(path, settings=ClipSettings(**settings)).clip.frames))


@pytest.mark.parametrize("container", CODECS)
def test_frames_are_the_middles_of_equal_parts(container: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / f"a.{container}", codec=CODECS[container])
    loaded = load_clip(path, settings=ClipSettings(num_frames=4))
    clip = loaded.clip
    assert clip.frame_indices == (3, 9, 15, 21)
    assert list(map(place_of, clip.frames)) == [3, 9, 15, 21]
    assert (clip.num_source_frames, loaded.notices) == (24, ())
    assert (clip.fps, clip.duration_s) == pytest.approx((8, 3))
    assert places(path, fps=2) == [0, 4, 8, 12, 16, 20]
    assert places(path) == [1, 4, 7, 10, 13, 16, 19, 22]


def test_frames_are_chosen_by_time_where_the_rate_varies(tmp_path: Path) -> None:
    times_ms = [*range(0, 1000, 50), 1000, 2000, 3000, 4000]
    for name in ("a.mp4", "a.mkv"):
        path = write_clip(tmp_path / name, times_ms=times_ms)
        clip = load_clip(path, settings=ClipSettings(num_frames=4)).clip
        moments = [(part + 0.5) * clip.duration_s * 1000 / 4 for part in range(4)]
        shown = [max(place for place, time in enumerate(times_ms) if time <= moment) for moment in moments]
        assert list(clip.frame_indices) == list(map(place_of, clip.frames)) == shown
        assert clip.duration_s >= 4
        assert places(path, fps=1)[:4] == [0, 20, 21, 22]


def test_the_same_frames_come_of_a_path_of_bytes_and_of_a_file(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    with path.open("rb") as stream:
        assert places(path) == places(path.read_bytes()) == places(stream)


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_what_is_chosen_is_what_decoding_all_of_it_gives(container: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / f"a.{container}", num_frames=40, keyframe_every=9, draw=lambda place: grey(place % 24))
    with av.open(str(path)) as opened:
        everything = [np.asarray(frame.to_image()) for frame in opened.decode(video=0)]
    for num_frames in (1, 3, 7, 40):
        clip = load_clip(path, settings=ClipSettings(num_frames=num_frames)).clip
        for index, frame in zip(clip.frame_indices, clip.frames, strict=True):
            assert np.array_equal(np.asarray(frame), everything[index])


def test_of_a_long_clip_only_what_leads_to_a_chosen_frame_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "a.mp4", num_frames=240, draw=lambda place: grey(place % 24))
    num_decoded, num_kept = [], []
    frames, upright = clips._frames, clips._upright
    monkeypatch.setattr(clips, "_frames", lambda *given: (num_decoded.append(1) or frame for frame in frames(*given)))
    monkeypatch.setattr(clips, "_upright", lambda *given: num_kept.append(1) or upright(*given))
    assert places(path, num_frames=2) == [60 % 24, 180 % 24]
    assert len(num_kept) == 2
    assert len(num_decoded) <= 2 * 6


def test_a_clip_of_few_frames_gives_each_of_them_once(tmp_path: Path) -> None:
    for num_frames in (1, 2, 3):
        path = write_clip(tmp_path / f"{num_frames}.mp4", num_frames=num_frames)
        assert places(path) == places(path, fps=1000) == list(range(num_frames))
        assert load_clip(path).clip.duration_s == pytest.approx(num_frames / 8, rel=0.1)


def test_more_frames_a_second_than_the_limit_are_spread_over_the_clip(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", num_frames=2 * MAX_FRAMES, draw=lambda place: grey(place % 24))
    loaded = load_clip(path, settings=ClipSettings(fps=8))
    assert loaded.clip.frame_indices == tuple(range(1, 2 * MAX_FRAMES, 2))
    assert f"{MAX_FRAMES} of them are used" in loaded.notices[0]


@pytest.mark.parametrize(
    "settings", [{"num_frames": 0}, {"num_frames": MAX_FRAMES + 1}, {"fps": 0.0}, {"num_frames": 2, "fps": 1.0}]
)
def test_settings_are_checked_when_they_are_made(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        ClipSettings(**settings)


@pytest.mark.parametrize(
    ("matrix", "corner"),
    # ISO 14496-12: a point goes to (ax + cy, bx + dy), y downwards; the corner is where the upper left one is shown.
    [((1, 0, 0, 1), (0, 0)), ((0, 1, -1, 0), (1, 0)), ((-1, 0, 0, -1), (1, 1)), ((0, -1, 1, 0), (0, 1))],
)
def test_a_rotated_clip_is_turned_upright(
    matrix: tuple[int, int, int, int], corner: tuple[int, int], tmp_path: Path
) -> None:
    marked = Image.new("RGB", (64, 48), "black")
    marked.paste("white", (0, 0, 16, 16))
    content = write_clip(tmp_path / "a.mp4", draw=lambda place: marked).read_bytes()
    start = content.index(_IDENTITY, content.index(b"tkhd"))
    a, b, c, d = (0x10000 * value for value in matrix)
    turned = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
    (frame,) = load_clip(
        content[:start] + turned + content[start + len(turned) :], settings=ClipSettings(num_frames=1)
    ).clip.frames
    assert frame.size == ((48, 64) if matrix[0] == 0 else (64, 48))
    values = np.asarray(frame.convert("L"))
    bright = {(x, y): values[-8 * y or 8, -8 * x or 8] > 128 for x in (0, 1) for y in (0, 1)}
    assert [place for place, is_bright in bright.items() if is_bright] == [corner]


def test_a_large_clip_is_read_smaller_so_that_its_frames_fit_together(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    loaded = load_clip(path, settings=ClipSettings(num_frames=4), limits=ClipLimits(max_total_pixels=64 * 48))
    assert {frame.size for frame in loaded.clip.frames} == {(32, 24)}
    assert list(map(place_of, loaded.clip.frames)) == [3, 9, 15, 21]
    assert "32 x 24 pixels" in loaded.notices[0]


@pytest.mark.parametrize(("name", "options"), [("a.mp4", FAST_START), ("a.mkv", {}), ("a.webm", {}), ("a.avi", {})])
def test_what_is_there_of_a_clip_that_was_cut_off_is_used_and_said(
    name: str, options: dict[str, str], tmp_path: Path
) -> None:
    def noisy(place: int) -> Image.Image:  # so that the frames are most of the file
        return Image.blend(grey(place), make_picture(64, 48, place), 0.3)

    path = write_clip(tmp_path / name, codec=CODECS[name[2:]], options=options, draw=noisy)
    content = path.read_bytes()
    whole, cut = load_clip(content), load_clip(content[: int(0.7 * len(content))], name="cut")
    assert whole.notices == ()
    (notice,) = cut.notices
    assert notice.startswith("cut: it was cut off")
    assert 0 < cut.clip.frame_indices[-1] < whole.clip.frame_indices[-1]
    everything = load_clip(content, settings=ClipSettings(num_frames=24)).clip.frames
    for index, frame in zip(cut.clip.frame_indices, cut.clip.frames, strict=True):
        assert np.abs(np.asarray(frame, int) - np.asarray(everything[index], int)).mean() < 1


def sound_only(path: Path, *, with_cover: bool = False) -> bytes:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        if with_cover:
            cover = container.add_stream("mjpeg", rate=1)
            cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic.value
            container.mux(cover.encode(av.VideoFrame.from_image(grey(0))))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


def uncoded(path: Path) -> bytes:
    """A clip of a codec that is none of those that are read."""
    return write_clip(path, codec="ffv1").read_bytes()


def without_frames(path: Path) -> bytes:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = MOMENT_S
        container.start_encoding()
    return path.read_bytes()


def week_long(path: Path) -> bytes:
    return write_clip(path, times_ms=[0, 7 * 24 * 3600 * 1000]).read_bytes()


def larger_than_announced(path: Path) -> bytes:
    """Frames that say themselves that they have 400 megapixels."""
    content = bytearray(write_clip(path, codec="mjpeg").read_bytes())
    start = -1
    while (start := content.find(b"\xff\xc0\0\x11\x08", start + 1)) >= 0:
        content[start + 5 : start + 9] = struct.pack(">HH", 20_000, 20_000)
    return bytes(content)


def noise_behind_the_header(path: Path) -> bytes:
    content = write_clip(path).read_bytes()
    return content[:40] + random.Random(0).randbytes(4000)


def noise_for_frames(path: Path) -> bytes:
    content = bytearray(write_clip(path, options=FAST_START).read_bytes())
    start = content.index(b"mdat") + 4
    content[start:] = random.Random(0).randbytes(len(content) - start)
    return bytes(content)


BAD: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "empty": (lambda path: b"", "clip_empty"),
    "web_page": (lambda path: b"<!DOCTYPE html><html>404</html>", "clip_html"),
    "lfs_pointer": (lambda path: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "clip_lfs_pointer"),
    "noise": (lambda path: b"\1\2\3" + random.Random(0).randbytes(999), "clip_unreadable"),
    "picture": (lambda path: encode_picture(make_picture(), "PNG"), "clip_format"),
    "playlist": (lambda path: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "clip_text"),
    "list_of_files": (lambda path: b"ffconcat version 1.0\nfile '/etc/passwd'\n", "clip_text"),
    "manifest": (lambda path: b"<?xml version='1.0'?><MPD><BaseURL>http://h/</BaseURL></MPD>", "clip_text"),
    "sound_alone": (sound_only, "clip_no_video"),
    "sound_with_a_cover": (lambda path: sound_only(path, with_cover=True), "clip_no_video"),
    "rare_codec": (uncoded, "clip_codec"),
    "no_frames": (without_frames, "clip_damaged"),
    "a_week_long": (week_long, "clip_too_long"),
    "frames_of_400_megapixels": (larger_than_announced, "clip_damaged"),
    "cut_before_its_index": (lambda path: write_clip(path).read_bytes()[:-200], "clip_truncated"),
    "noise_behind_the_header": (noise_behind_the_header, "clip_truncated"),
    "noise_for_frames": (noise_for_frames, "clip_damaged"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_clip_is_one_line(case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, code = BAD[case]
    path = tmp_path / ("a.mkv" if case in ("rare_codec", "no_frames", "a_week_long") else "a.mp4")
    path.write_bytes(make(path))
    with pytest.raises(ClipError) as caught:
        load_clip(path)
    assert caught.value.code == code
    assert_one_line(caught.value)
    assert capfd.readouterr() == ("", "")


def test_limits_are_those_that_were_given(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    for limits, code in (
        ({"max_pixels": 64 * 48 - 1}, "clip_too_large"),
        ({"max_duration_s": 2.9}, "clip_too_long"),
        ({"max_source_frames": 23}, "clip_too_long"),
        ({"max_bytes": path.stat().st_size - 1}, "clip_file_too_large"),
    ):
        with pytest.raises(ClipError) as caught:
            load_clip(path, limits=ClipLimits(**limits))
        assert caught.value.code == code
        assert_one_line(caught.value)
    exact = ClipLimits(max_pixels=64 * 48, max_source_frames=24, max_bytes=path.stat().st_size, max_duration_s=3.01)
    assert load_clip(path, limits=exact).clip.num_source_frames == 24


@pytest.mark.parametrize("container", ["mp4", "mkv", "webm", "avi", "ts"])
def test_only_clip_errors_come_out_of_damaged_files(
    container: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = write_clip(tmp_path / f"a.{container}", codec=CODECS[container], num_frames=8).read_bytes()
    draw = random.Random(container)
    for _ in range(25):
        mutant = bytearray(content)
        for _ in range(draw.choice((1, 4, 40))):
            mutant[draw.randrange(len(mutant))] = draw.randrange(256)
        try:
            loaded = load_clip(bytes(mutant), settings=ClipSettings(num_frames=2))
        except ClipError as error:
            assert_one_line(error)
        else:
            assert 1 <= len(loaded.clip.frames) == len(loaded.clip.frame_indices) <= 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("demuxer", ["hls", "concat"])
def test_ffmpeg_opens_no_file_that_another_names(demuxer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even if a list of files passed for a container."""
    other = write_clip(tmp_path / "other.ts")
    lists = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile://{other}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile 'file:{other}'\n",
    }
    monkeypatch.setattr(clips, "container_of", lambda head: demuxer)
    with pytest.raises(ClipError):
        load_clip(lists[demuxer].encode())


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ResourceError, match=r"vlinstruct\[video\]") as caught:
        load_clip(path)
    assert caught.value.exit_code == 6


def test_pixels_that_are_no_squares_are_stretched(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        container.mux(stream.encode(av.VideoFrame.from_image(grey(3))))
        container.mux(stream.encode())
    assert load_clip(path).clip.frames[0].size == (96, 48)
