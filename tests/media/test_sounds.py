"""A sound of any format, rate and number of channels is the same 16 kHz; everything else about it is one line."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clip_fixtures import write_clip, write_sound
from picture_fixtures import assert_one_line, encode_picture, make_picture

from vlinstruct.errors import ResourceError, SoundError
from vlinstruct.media.sounds import SAMPLING_RATE, SoundLimits, load_sound

FORMATS = {"wav": 1e-4, "flac": 1e-4, "aiff": 1e-4, "ogg": 0.02, "mp3": 0.02}
"""By format how far a sample may be from what was written."""


def tone(rate: int, seconds: float = 0.5) -> np.ndarray:
    times = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * 440 * times) * np.minimum(1, 20 * times)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_every_format_and_rate_is_the_same_sound(name: str, rate: int, tmp_path: Path) -> None:
    channels = np.stack([tone(rate), np.zeros(rate // 2)], axis=1)
    loaded = load_sound(write_sound(tmp_path / f"a.{name}", channels, rate))
    samples = loaded.sound.samples
    assert (samples.dtype, samples.ndim, loaded.sound.sampling_rate) == (np.float32, 1, SAMPLING_RATE)
    assert loaded.notices == ()
    expected = tone(SAMPLING_RATE) / 2  # the mean of both channels
    assert len(samples) >= len(expected) - 20
    expected = expected[2000:6000]
    # MP3 has silence in front, by its encoder: the sound is looked for.
    lags = range(1990, 3600) if name == "mp3" else [2000]
    error = min(np.abs(samples[lag : lag + 4000] - expected).max() for lag in lags)
    assert error < FORMATS[name] + (0 if rate == SAMPLING_RATE else 0.005)


def test_the_same_sound_comes_of_a_path_of_bytes_and_of_a_file(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", tone(16_000))
    with path.open("rb") as stream:
        sounds = [load_sound(source).sound.samples for source in (path, path.read_bytes(), stream)]
    assert all(np.array_equal(sounds[0], other) for other in sounds[1:])


@pytest.mark.parametrize("name", ["wav", "flac", "ogg", "aiff"])
def test_what_is_there_of_a_sound_that_was_cut_off_is_used_and_said(name: str, tmp_path: Path) -> None:
    content = write_sound(tmp_path / f"a.{name}", np.random.default_rng(0).uniform(-0.5, 0.5, 160_000)).read_bytes()
    whole, cut = load_sound(content), load_sound(content[: int(0.9 * len(content))], name="cut")
    assert whole.notices == ()
    assert cut.notices[0].startswith("cut: it was cut off")
    assert 0 < len(cut.sound.samples) < len(whole.sound.samples)
    same = slice(0, len(cut.sound.samples) - 4000)
    assert np.abs(cut.sound.samples[same] - whole.sound.samples[same]).max() < 1e-3


def not_finite(path: Path) -> bytes:
    return write_sound(path, np.full(100, np.nan, np.float32), subtype="FLOAT").read_bytes()


BAD: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "empty": (lambda path: b"", "sound_empty"),
    "no_samples": (lambda path: write_sound(path, np.zeros(0)).read_bytes(), "sound_no_samples"),
    "web_page": (lambda path: b"<!DOCTYPE html><html>404</html>", "sound_html"),
    "noise": (lambda path: b"\1\2\3" + random.Random(0).randbytes(999), "sound_unreadable"),
    "header_alone": (lambda path: write_sound(path, tone(16_000)).read_bytes()[:20], "sound_damaged"),
    "picture": (lambda path: encode_picture(make_picture(), "PNG"), "sound_format"),
    "clip": (lambda path: write_clip(path.with_suffix(".mp4")).read_bytes(), "sound_format"),
    "ogg_without_sound": (lambda path: b"OggS\0\2" + bytes(20) + b"\1\x2a\x80theora" + bytes(35), "sound_damaged"),
    "a_sample_a_second": (lambda path: write_sound(path, np.zeros(3000), 1).read_bytes(), "sound_damaged"),
    "not_finite": (not_finite, "sound_damaged"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_sound_is_one_line(case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, code = BAD[case]
    content = make(tmp_path / "made.wav")
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(SoundError) as caught:
        load_sound(path)
    assert caught.value.code == code
    assert_one_line(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_header_that_promises_hours_takes_no_memory_for_them(tmp_path: Path) -> None:
    content = bytearray(write_sound(tmp_path / "a.wav", tone(16_000)).read_bytes())
    content[4:8] = content[40:44] = (0x7FFFFFFF).to_bytes(4, "little")
    assert len(load_sound(bytes(content)).sound.samples) == 8000


def test_limits_are_those_that_were_given(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", tone(16_000))
    for limits, code in (
        (SoundLimits(max_duration_s=0.49), "sound_too_long"),
        (SoundLimits(max_bytes=100), "sound_file_too_large"),
    ):
        with pytest.raises(SoundError) as caught:
            load_sound(path, limits=limits)
        assert caught.value.code == code
        assert_one_line(caught.value)
    assert len(load_sound(path, limits=SoundLimits(max_duration_s=0.5)).sound.samples) == 8000


@pytest.mark.parametrize("name", ["wav", "flac", "ogg", "aiff"])
def test_only_sound_errors_come_out_of_damaged_files(name: str, tmp_path: Path) -> None:
    content = write_sound(tmp_path / f"a.{name}", tone(16_000, 0.1)).read_bytes()
    draw = random.Random(name)
    for _ in range(60):
        mutant = bytearray(content)
        for _ in range(draw.choice((1, 4, 40))):
            mutant[draw.randrange(len(mutant))] = draw.randrange(256)
        try:
            samples = load_sound(bytes(mutant)).sound.samples
        except SoundError as error:
            assert_one_line(error)
        else:
            assert len(samples)
            assert np.abs(samples).max() <= 1


@pytest.mark.parametrize("package", ["soundfile", "soxr"])
def test_a_missing_package_is_named_with_its_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_sound(tmp_path / "a.wav", tone(16_000))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ResourceError, match=r"vlinstruct\[audio\]") as caught:
        load_sound(path)
    assert caught.value.exit_code == 6
