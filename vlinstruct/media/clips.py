"""Reads the chosen frames of a clip, or says in one line why it cannot: MP4, MOV, Matroska, WebM, AVI and MPEG.

Order: regular file, byte cap, container by content, the times of all frames (from the packets, nothing is decoded),
caps on length and pixels, then the chosen frames alone, each decoded from the keyframe before it. Frames are chosen by
time: by count, a clip of a variable rate would show mostly its fast part.

ffmpeg opens nothing itself. It gets a file object of ours, the one container that the first bytes announce, a list of
decoders, and no protocol: a playlist in a stranger's file could otherwise read any file or address.

Legend: N chosen frames.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, BinaryIO

from PIL import Image

from vlinstruct.errors import VlinstructError, is_out_of_files, not_installed, printable, require
from vlinstruct.files import PathLike, opened, refusal, too_many_bytes
from vlinstruct.media.kinds import HEAD_BYTES, container_of, something_else
from vlinstruct.settings import MAX_FRAMES, ClipSettings
from vlinstruct.values import Abilities, Clip

ClipLike = PathLike | bytes | BinaryIO

_DECODERS = "h264,hevc,vp8,vp9,libvpx,libvpx-vp9,libdav1d,av1,mpeg4,mpeg2video,mpeg1video,mjpeg,prores,h263,msmpeg4"
_FORMATS = "MP4, MOV, WebM, MKV, AVI or MPEG"
_COPY = "Copy or download it again"
_MAX_BOXES = 10_000  # before the index; a hostile file could have a billion
_WHOLE = 0.95  # a clip that ends before this share of its announced duration was cut off; headers round
# Their indices lead to a keyframe; in MPEG's streams and in AVI a seek may end behind the frame that is wanted.
_SEEKABLE = ("mov", "matroska")
_ROUNDING_S = 1e-3  # files round the times of their frames, Matroska's to a millisecond
_TRANSPOSES = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True, kw_only=True)
class ClipLimits:
    """How large a clip may be.

    Args:
        max_pixels: most pixels of a frame.
        max_total_pixels: of the chosen frames together; larger ones are read smaller.
        max_bytes: most bytes of the file.
        max_duration_s: longest duration, in seconds.
        max_source_frames: most frames of the file.
    """

    max_pixels: int = 50_000_000
    max_total_pixels: int = 200_000_000
    max_bytes: int = 8_000_000_000
    max_duration_s: float = 3 * 3600.0
    max_source_frames: int = 2_000_000

    def __post_init__(self) -> None:
        require(*((getattr(self, name) > 0, f"{name} must be above 0") for name in self.__dataclass_fields__))


@dataclass(frozen=True, kw_only=True)
class LoadedClip:
    """A clip as the models see it.

    Args:
        clip: its chosen frames.
        notices: what a user should know, e.g. that it was cut off; each names the file.
    """

    clip: Clip
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Timeline:
    """When the frames of a clip are shown, as its packets say.

    Args:
        times: of all frames, rising, in units of `unit_s`.
        stream_index: of the stream that they are in.
        keyframes: those at which decoding may begin, rising.
        unit_s: seconds.
        duration_s: from the first frame's beginning to the last one's end.
        size: width and height at which a player shows a frame, before it is turned.
        is_cut_off: it announces more than is there.
    """

    times: Sequence[int]
    stream_index: int
    keyframes: Sequence[int]
    unit_s: float
    duration_s: float
    size: tuple[int, int]
    is_cut_off: bool


def require_av() -> Any:
    """Returns PyAV.

    Raises:
        ResourceError: it is not installed.
    """
    try:
        return import_module("av")
    except ImportError:
        raise not_installed("clips", "av", "video") from None


def load_clip(
    source: ClipLike,
    *,
    name: str | None = None,
    settings: ClipSettings = ClipSettings(),
    limits: ClipLimits = ClipLimits(),
) -> LoadedClip:
    """Reads the chosen frames of a clip.

    Args:
        source: a path, the file's content, or a binary file object that can be sought in.
        name: what to call it in messages; the path, or `clip data`.
        settings: which frames; the middles of eight parts where nothing is set.
        limits: how large it may be.

    Raises:
        ClipError: it cannot be read; `code` says why.
        ResourceError: PyAV is not installed.
    """
    av = require_av()
    place = name or (os.fspath(source) if isinstance(source, str | os.PathLike) else "clip data")
    with opened(source, kind="clip") as stream:
        size_bytes = stream.seek(0, os.SEEK_END)
        if size_bytes > limits.max_bytes:
            raise too_many_bytes("clip", place, size_bytes, limits.max_bytes)
        stream.seek(0)
        demuxer = _demuxer_of(stream.read(HEAD_BYTES), place)
        if demuxer == "mov" and not _has_index(stream, size_bytes):
            # ffmpeg would call it empty, or a sound, by how far it goes.
            raise refusal("clip", place, "truncated", "it was cut off, its index is missing", _COPY)
        with _ffmpeg(av, stream, demuxer, place, limits) as container:
            timeline = _timeline(av, container, place, limits)
        indices, whats = _chosen(timeline, settings)
        wanted = [timeline.times[index] for index in indices]
        size = _read_size(timeline.size, len(wanted), limits)
        frames: dict[int, Image.Image] | None = None
        for may_seek in (True, False) if demuxer in _SEEKABLE else (False,):
            with _ffmpeg(av, stream, demuxer, place, limits) as container:
                frames = _decoded(av, container, timeline, wanted, size, may_seek=may_seek)
            if frames is not None:
                break
    if not frames:
        raise refusal("clip", place, "damaged", "no frame of it can be decoded", _COPY)
    if timeline.is_cut_off or len(frames) < len(wanted):
        whats.append("it was cut off or is damaged, what is there of it is used")
    if size != timeline.size:
        whats.append(f"its frames are read at {size[0]} x {size[1]} pixels, to fit into memory together")
    clip = Clip(
        frames=tuple(frames.values()),
        frame_indices=tuple(index for index, time in zip(indices, wanted, strict=True) if time in frames),
        num_source_frames=len(timeline.times),
        fps=len(timeline.times) / timeline.duration_s,
        duration_s=timeline.duration_s,
    )
    return LoadedClip(clip=clip, notices=tuple(f"{printable(place)}: {what}" for what in whats))


def _demuxer_of(head: bytes, place: str) -> str:
    if not head:
        raise refusal("clip", place, "empty", "empty file", "Check where it came from")
    if (demuxer := container_of(head)) is not None:
        return demuxer
    raise something_else("clip", head, place, _FORMATS)


def _has_index(stream: BinaryIO, size_bytes: int) -> bool:
    """Says whether an MP4 or MOV has its `moov` whole: it stands behind the frames where a camera wrote the file."""
    place = 0
    for _ in range(_MAX_BOXES):
        stream.seek(place)
        header = stream.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:  # the length stands behind the name, in eight bytes
            length = int.from_bytes(header[8:16], "big")
        length = length or size_bytes - place  # 0: to the end of the file
        place += length
        if header[4:8] == b"moov" or length < 8 or place >= size_bytes:
            return header[4:8] == b"moov" and place <= size_bytes
    return False


@contextmanager
def _ffmpeg(av: Any, stream: BinaryIO, demuxer: str, place: str, limits: ClipLimits) -> Iterator[Any]:
    """Opens a container, and turns what ffmpeg raises into our error."""

    def open_nothing(url: str, flags: int, options: dict[str, str]) -> None:
        raise OSError("a clip opens no other file")

    options = {"protocol_whitelist": "none", "codec_whitelist": _DECODERS, "max_pixels": str(limits.max_pixels)}
    stream.seek(0)
    try:
        with av.open(stream, format=demuxer, options=options, io_open=open_nothing) as container:
            yield container
    except VlinstructError:
        raise
    except MemoryError as error:
        raise refusal("clip", place, "out_of_memory", "not enough memory to decode it", "Shrink it") from error
    except Exception as error:  # a dozen kinds, from FFmpegError to EOFError, whose texts may hold paths
        if is_out_of_files(error):
            raise
        raise refusal("clip", place, "damaged", "damaged clip, or cut off before its index", _COPY) from error


def _timeline(av: Any, container: Any, place: str, limits: ClipLimits) -> _Timeline:
    """Reads the times of all frames; what a header says of them is not believed.

    Raises:
        ClipError: it has no frames, too many or too large ones, or lasts too long.
    """
    video = _video_stream(av, container, place, limits)
    times, lengths, keyframes = list[int](), list[int](), list[int]()
    end_s, is_cut_off = 0.0, False
    start_s = max(0, container.start_time or 0) / 1e6
    try:
        for packet in container.demux():
            time = packet.pts if packet.pts is not None else packet.dts
            if time is not None and packet.time_base is not None:
                end_s = max(end_s, float((time + (packet.duration or 0)) * packet.time_base))
            if packet.size == 0 or packet.stream_index != video.index:
                continue
            if packet.is_corrupt:  # the file ends within it, and a decoder would repeat the frame before
                is_cut_off = True
                continue
            if packet.is_discard:  # before the point at which an edit lets it begin
                continue
            # A raw stream has no times: its frames follow each other.
            times.append(time if time is not None else (times[-1] + max(1, packet.duration or 0) if times else 0))
            lengths.append(packet.duration or 0)
            if packet.is_keyframe:
                keyframes.append(times[-1])
            if len(times) > limits.max_source_frames:
                why = f"more than {limits.max_source_frames:,} frames"
                raise refusal("clip", place, "too_long", why, "Cut out the part that you ask about")
    except av.error.FFmpegError:
        is_cut_off = True
    if not times:
        raise refusal("clip", place, "no_frames", "no frame is in it", _COPY)
    unit_s = float(video.time_base)
    span_s = (max(times) - min(times)) * unit_s
    mean_s = span_s / (len(times) - 1) if span_s else 1 / float(video.average_rate or 1)
    duration_s = span_s + (lengths[times.index(max(times))] * unit_s or mean_s)
    if duration_s > limits.max_duration_s:
        why = f"it lasts {duration_s / 60:,.0f} minutes, at most {limits.max_duration_s / 60:,.0f} are read"
        raise refusal("clip", place, "too_long", why, "Cut out the part that you ask about")
    return _Timeline(
        times=sorted(times),
        stream_index=video.index,
        keyframes=sorted(keyframes),
        unit_s=unit_s,
        duration_s=duration_s,
        size=_shown_size(video),
        # By times: of a clip that was trimmed, the header counts frames that are not shown.
        is_cut_off=is_cut_off or end_s - start_s < _WHOLE * (container.duration or 0) / 1e6,
    )


def _video_stream(av: Any, container: Any, place: str, limits: ClipLimits) -> Any:
    """Returns the stream of pictures, whose frames are not too large; a sound's cover is none."""
    cover = av.stream.Disposition.attached_pic
    video = next((stream for stream in container.streams.video if not stream.disposition & cover), None)
    if video is None:
        advice = "Give a clip with pictures, or its sound as WAV, FLAC, MP3 or Ogg"
        raise refusal("clip", place, "no_video", "it has no video stream", advice)
    context = video.codec_context
    if context is None or context.name not in _DECODERS.split(","):
        why = f"its video is coded as {'something unknown' if context is None else context.name}, which is not read"
        raise refusal("clip", place, "codec", why, "Convert it to MP4 (H.264)")
    if context.width < 1 or context.height < 1:  # ffmpeg, too, refuses those above `max_pixels`
        why = f"its frames have no size, or more than {limits.max_pixels:,} pixels"
        raise refusal("clip", place, "too_large", why, "Shrink it or raise --max-pixels")
    if context.width * context.height > limits.max_pixels:
        why = f"{context.width} x {context.height} pixels a frame, at most {limits.max_pixels:,} are decoded"
        raise refusal("clip", place, "too_large", why, "Shrink it or raise --max-pixels")
    return video


def _shown_size(video: Any) -> tuple[int, int]:
    width, height = video.codec_context.width, video.codec_context.height
    aspect = float(video.sample_aspect_ratio or 1)
    return (round(width * aspect) if 0.1 < aspect < 10 else width), height


def _read_size(size: tuple[int, int], num_frames: int, limits: ClipLimits) -> tuple[int, int]:
    """Returns the size at which so many frames fit into memory together."""
    scale = min(1.0, math.sqrt(limits.max_total_pixels / (num_frames * size[0] * size[1])))
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def _chosen(timeline: _Timeline, settings: ClipSettings) -> tuple[list[int], list[str]]:
    """Returns which frames are used, rising, and what a user should know of that."""
    begins_s = [(time - timeline.times[0]) * timeline.unit_s for time in timeline.times]

    def shown_at(moments_s: Iterable[float]) -> list[int]:
        # What a player shows then; a set, since of few frames one may be shown at several moments.
        return sorted({max(0, bisect_right(begins_s, moment + _ROUNDING_S) - 1) for moment in moments_s})

    def middles(num_frames: int) -> list[int]:
        return shown_at((part + 0.5) * timeline.duration_s / num_frames for part in range(num_frames))

    if settings.fps is None:
        return middles(settings.num_frames or Abilities.num_frames), []
    # Of a rate above the clip's own there are no more frames than it has.
    count = max(1, math.ceil(timeline.duration_s * settings.fps - _ROUNDING_S))
    indices = shown_at(place / settings.fps for place in range(min(count, 2 * len(begins_s))))
    if count > 2 * len(begins_s):
        indices = list(range(len(begins_s)))
    if len(indices) <= MAX_FRAMES:
        return indices, []
    what = f"it has {len(indices):,} frames at {settings.fps:g} a second, {MAX_FRAMES} of them are used"
    return middles(MAX_FRAMES), [what]


def _decoded(
    av: Any, container: Any, timeline: _Timeline, wanted: Sequence[int], size: tuple[int, int], *, may_seek: bool
) -> dict[int, Image.Image] | None:
    """Decodes the wanted frames, upright, by their times; those behind the last one that can be decoded are missing.

    Returns:
        None where a seek led behind the frame that is wanted.
    """
    video = container.streams[timeline.stream_index]
    # One thread: one of ffmpeg's that logs waits for Python's lock, which closing the decoder holds while it waits for
    # that thread (seen with PyAV 14.2).
    video.thread_type = "NONE"
    video.codec_context.thread_count = 1
    images: dict[int, Image.Image] = {}
    frames, shown, position = _frames(av, container, video, timeline.times), None, timeline.times[0]
    for time in wanted:
        num_before = bisect_right(timeline.keyframes, time)
        has_sought = may_seek and num_before > 0 and timeline.keyframes[num_before - 1] > position
        if has_sought:
            container.seek(timeline.keyframes[num_before - 1], stream=video)
            frames, shown = _frames(av, container, video, timeline.times), None
        while shown is None or position < time:
            following = next(frames, None)
            if following is None:
                # What was decoded last stands for a clip of which nothing else can be.
                return images or ({wanted[0]: _upright(shown, size)} if shown is not None else {})
            position, shown = following
            if has_sought and position > time:
                return None
            has_sought = False
        images[time] = _upright(shown, size)
    return images


def _frames(av: Any, container: Any, video: Any, times: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """Yields what is decoded from here on, with its time; a damaged packet costs its frame."""
    places = iter(times)
    with suppress(av.error.FFmpegError):
        for packet in container.demux(video):
            with suppress(av.error.FFmpegError):
                for frame in packet.decode():
                    counted = next(places, times[-1])
                    yield (counted if frame.pts is None else frame.pts), frame


def _upright(frame: Any, size: tuple[int, int]) -> Image.Image:
    image: Image.Image = frame.to_image(width=size[0], height=size[1])
    transpose = _TRANSPOSES.get(frame.rotation % 360)
    return image if transpose is None else image.transpose(transpose)
