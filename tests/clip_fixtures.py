"""Clips and sounds made by code: no binary lies in git."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

MOMENT_S = Fraction(1, 1000)
"""The unit of a clip's times."""


def grey(place: int) -> Image.Image:
    """A frame that says its place, 0 to 23, by how bright it is."""
    return Image.new("RGB", (64, 48), (10 * place + 8,) * 3)


def place_of(frame: Image.Image) -> int:
    """Which of `grey`'s frames this is."""
    return round((float(np.asarray(frame).mean()) - 8) / 10)


def write_clip(
    path: Path,
    *,
    num_frames: int = 24,
    times_ms: Sequence[int] | None = None,
    codec: str = "libx264",
    keyframe_every: int = 6,
    options: dict[str, str] | None = None,
    draw: Callable[[int], Image.Image] = grey,
) -> Path:
    """Writes a clip of 8 frames a second, or with a time for each frame, in the container that its name says."""
    times_ms = [125 * place for place in range(num_frames)] if times_ms is None else times_ms
    size = draw(0).size
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = keyframe_every
        if codec != "mpeg4":  # its times are counted at the rate
            stream.codec_context.time_base = MOMENT_S
        for place, time in enumerate(times_ms):
            frame = av.VideoFrame.from_image(draw(place))
            frame.pts, frame.time_base = (time, MOMENT_S) if codec != "mpeg4" else (place, Fraction(1, 8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path, samples: np.ndarray, rate: int = 16_000, **options: str) -> Path:
    """Writes a sound in the format that its name says."""
    import soundfile

    soundfile.write(path, samples, rate, **options)
    return path
