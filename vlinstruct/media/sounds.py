"""Reads a sound as one channel at 16 kHz, or says in one line why it cannot: WAV, FLAC, MP3, Ogg and AIFF.

Order: regular file, byte cap, format by content, then block by block: mean of the channels, resampled, up to a cap on
the duration. What a header says of the length is not believed. 16 kHz is what the audio encoders of this field read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, BinaryIO

from vlinstruct.errors import VlinstructError, is_out_of_files, not_installed, printable, require
from vlinstruct.files import PathLike, opened, refusal, too_many_bytes
from vlinstruct.media.kinds import HEAD_BYTES, kind_of, something_else
from vlinstruct.values import Sound

SoundLike = PathLike | bytes | BinaryIO
SAMPLING_RATE = 16_000
"""Samples a second that models hear."""

_FORMATS = "WAV, FLAC, MP3 or Ogg"
_COPY = "Copy or download it again"
_BLOCK_SAMPLES = 4096  # what is lost before damage at most
_MAX_CHANNELS = 64
_RATES = range(1_000, 1_000_001)  # a sample a second would be 16,000 of ours
_OGG_PAGE_BYTES = 65_307  # the largest
_UNKNOWN_LENGTH = 0x7FFF0000  # and more: what programs write into a header that they cannot return to


@dataclass(frozen=True, kw_only=True)
class SoundLimits:
    """How large a sound may be.

    Args:
        max_bytes: most bytes of the file.
        max_duration_s: longest duration, in seconds; an hour takes 230 MB.
    """

    max_bytes: int = 2_000_000_000
    max_duration_s: float = 3600.0

    def __post_init__(self) -> None:
        require(*((getattr(self, name) > 0, f"{name} must be above 0") for name in self.__dataclass_fields__))


@dataclass(frozen=True, kw_only=True)
class LoadedSound:
    """A sound as the models hear it.

    Args:
        sound: its samples.
        notices: what a user should know, e.g. that it was cut off; each names the file.
    """

    sound: Sound
    notices: tuple[str, ...] = ()


def require_soundfile() -> tuple[Any, Any]:
    """Returns soundfile and soxr.

    Raises:
        ResourceError: one of them is not installed.
    """
    libraries = []
    for name in ("soundfile", "soxr"):
        try:
            libraries.append(import_module(name))
        except (ImportError, OSError):  # OSError: soundfile without its libsndfile
            raise not_installed("sounds", name, "audio") from None
    return libraries[0], libraries[1]


def load_sound(source: SoundLike, *, name: str | None = None, limits: SoundLimits = SoundLimits()) -> LoadedSound:
    """Reads a sound.

    Args:
        source: a path, the file's content, or a binary file object that can be sought in.
        name: what to call it in messages; the path, or `sound data`.
        limits: how large it may be.

    Raises:
        SoundError: it cannot be read; `code` says why.
        ResourceError: soundfile or soxr is not installed.
    """
    import numpy as np

    soundfile, soxr = require_soundfile()
    place = name or (os.fspath(source) if isinstance(source, str | os.PathLike) else "sound data")
    with opened(source, kind="sound") as stream:
        size_bytes = stream.seek(0, os.SEEK_END)
        if size_bytes > limits.max_bytes:
            raise too_many_bytes("sound", place, size_bytes, limits.max_bytes)
        stream.seek(0)
        head = stream.read(HEAD_BYTES)
        _check_format(head, place)
        stream.seek(0)
        try:
            with soundfile.SoundFile(_Seekable(stream)) as file:
                _check_header(file, place)
                # Where it may seek, soundfile seeks after each block (0.14), and of an MP3 a part is then silent.
                file.seekable = lambda: False
                num_announced, rate = file.frames, file.samplerate
                resampler = soxr.ResampleStream(rate, SAMPLING_RATE, 1, dtype="float32")
                blocks, num_read = [], 0
                for block in _blocks(soundfile, file):
                    num_read += len(block)
                    if num_read > limits.max_duration_s * rate:
                        why = f"it lasts more than {limits.max_duration_s / 60:,.0f} minutes"
                        raise refusal("sound", place, "too_long", why, "Cut out the part that you ask about")
                    blocks.append(resampler.resample_chunk(block.mean(axis=1)))
                blocks.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        except VlinstructError:
            raise
        except MemoryError as error:
            raise refusal("sound", place, "out_of_memory", "not enough memory to read it", "Cut it") from error
        except Exception as error:  # libsndfile's errors, and those of the stream below it
            if is_out_of_files(error):
                raise
            raise refusal("sound", place, "damaged", "damaged sound, or one without an audio stream", _COPY) from error
        is_cut_off = num_read < num_announced or _is_cut_off(stream, head, size_bytes)
    samples = np.concatenate(blocks)
    if not len(samples):
        raise refusal("sound", place, "no_samples", "it has a length of zero", "Check where it came from")
    if not np.isfinite(samples).all():
        raise refusal("sound", place, "damaged", "its samples are not finite", "Save it again")
    what = "it was cut off or is damaged, what is there of it is used"
    return LoadedSound(
        sound=Sound(samples=np.clip(samples, -1.0, 1.0, out=samples), sampling_rate=SAMPLING_RATE),
        notices=(f"{printable(place)}: {what}",) if is_cut_off else (),
    )


class _Seekable:
    """A stream for libsndfile, which seeks before its beginning in damaged files: Python would print that to stderr."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read, self.tell, self._seek = stream.read, stream.tell, stream.seek

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Seeks as the stream does; stays where it is if that is no place."""
        with suppress(ValueError, OSError):
            return self._seek(offset, whence)
        return self.tell()


def _check_format(head: bytes, place: str) -> None:
    if not head:
        raise refusal("sound", place, "empty", "empty file", "Check where it came from")
    kind = kind_of(head)
    if kind == "sound":
        return
    if kind == "clip":
        why = "its container is that of a clip (as M4A is), which is not read as sound"
        raise refusal("sound", place, "format", why, f"Convert it to {_FORMATS}")
    raise something_else("sound", head, place, _FORMATS)


def _check_header(file: Any, place: str) -> None:
    if not 1 <= file.channels <= _MAX_CHANNELS or file.samplerate not in _RATES:
        why = f"{file.channels} channels at {file.samplerate:,} samples a second"
        raise refusal("sound", place, "damaged", why, f"Convert it to {_FORMATS}")


def _blocks(soundfile: Any, file: Any) -> Iterator[Any]:
    """Yields the samples block by block, (samples, channels); what follows damage is lost."""
    while True:
        try:
            block = file.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            return
        if not len(block):
            return
        yield block


def _is_cut_off(stream: BinaryIO, head: bytes, size_bytes: int) -> bool:
    """Says whether bytes are missing that a WAV or AIFF announces, or the page that ends an Ogg."""
    if head.startswith(b"OggS"):
        stream.seek(max(0, size_bytes - _OGG_PAGE_BYTES))
        rest = stream.read()
        page = rest.rfind(b"OggS")
        flags = rest[page + 5 : page + 6] if page >= 0 else b""
        return not flags or not flags[0] & 4
    if head[:4] not in (b"RIFF", b"FORM"):
        return False
    announced = 8 + int.from_bytes(head[4:8], "little" if head.startswith(b"RIFF") else "big")
    return size_bytes < announced < _UNKNOWN_LENGTH
