"""What a page shows of a picture, a clip or a sound: a small picture in so many bytes, and a line in words."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlinstruct.values import Clip, Sound

if TYPE_CHECKING:
    from PIL import Image

    from vlinstruct.values import Media

_MAX_SIDE = 640
# What a JPEG of a photograph takes at quality 80; where one takes more, it is encoded again, coarser and smaller.
_BYTES_PER_PIXEL = 0.2
_QUALITIES = (80, 60, 40)
_LEAST_SIDE = 16


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a page shows of a medium.

    Args:
        address: a `data:` URL of the picture; empty for a sound.
        words: what it is, where it is no picture; else empty.
    """

    address: str
    words: str = ""


def preview_of(medium: Media, *, max_bytes: int) -> Preview:
    """Returns what a page shows of a medium.

    Args:
        medium: as it was read.
        max_bytes: most characters of the address; a picture of 16 pixels is made whatever it says.
    """
    if isinstance(medium, Sound):
        return Preview(address="", words=f"a sound of {len(medium.samples) / medium.sampling_rate:.1f} s")
    if isinstance(medium, Clip):
        place = shown_frame(len(medium.frames))
        words = f"frame {place + 1} of the {len(medium.frames)} that were seen of a clip of {medium.duration_s:.1f} s"
        return Preview(address=_address(medium.frames[place], max_bytes), words=words)
    return Preview(address=_address(medium, max_bytes))


def shown_frame(num_frames: int) -> int:
    """Returns which of a clip's frames stands for it: the middle one."""
    return (num_frames - 1) // 2


def _address(picture: Image.Image, max_bytes: int) -> str:
    room = max_bytes * 3 // 4 - 32  # base64 takes 4 characters for 3 bytes, behind `data:image/jpeg;base64,`
    shrinking = min(1.0, math.sqrt(max(room, 1) / _BYTES_PER_PIXEL / (picture.width * picture.height)))
    side = max(_LEAST_SIDE, min(_MAX_SIDE, round(max(picture.size) * shrinking)))
    while True:
        small = picture.convert("RGB")
        small.thumbnail((side, side), reducing_gap=2.0)
        # What was drawn is small, and sharp, as PNG, which has no quality.
        for format, quality in (("png", 0), *(("jpeg", quality) for quality in _QUALITIES)):
            stream = io.BytesIO()
            small.save(stream, format, quality=quality, optimize=True)
            if stream.tell() <= room or (side == _LEAST_SIDE and quality == _QUALITIES[-1]):
                return f"data:image/{format};base64,{base64.b64encode(stream.getvalue()).decode()}"
        side = max(_LEAST_SIDE, side * 2 // 3)
