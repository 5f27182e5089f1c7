"""Tells pictures, clips and sounds apart: by name where files are listed, by their first bytes where they are read.

A container is named as ffmpeg's demuxer is: the clip's reader asks for that one, so that no other is ever tried on a
stranger's bytes. What is none of the three is a picture, whose reader says what it is instead.
"""

from __future__ import annotations

import os
import re
from typing import Literal

from vlinstruct.errors import InputError
from vlinstruct.files import refusal
from vlinstruct.media.image_formats import NoImage, identify
from vlinstruct.values import MediaKind

IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".mpo"}
)
CLIP_EXTENSIONS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".3gp"})
SOUND_EXTENSIONS = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff"})

HEAD_BYTES = 1024
"""How much of a file tells its kind."""

_STILL_IMAGES = rb"....ftyp(avif|avis|hei|hev|mif|msf)"
_CONTAINERS: tuple[tuple[bytes, str], ...] = (
    (rb"....(ftyp|moov|mdat|wide|free|skip)", "mov"),
    (rb"\x1aE\xdf\xa3", "matroska"),
    (rb"RIFF....AVI ", "avi"),
    (rb"\0\0\x01\xba", "mpeg"),
    (rb"G.{187}G.{187}G|.{4}G.{191}G.{191}G", "mpegts"),  # packets of 188 bytes, on cameras 4 before each
)
# The last one is MP3 without a tag: eleven ones, then a version, a layer and a bit rate that exist.
_SOUNDS = rb"(RIFF|RF64)....WAVE|fLaC|OggS|FORM....AIF[FC]|ID3|\xff[\xe2-\xe7\xf2-\xf7\xfa-\xfb][\x10-\xef]"


def kind_by_name(name: str) -> MediaKind | None:
    """Returns what a name ends like; None where it ends like none of the three.

    >>> kind_by_name("a/B.JPG"), kind_by_name("b.mp4"), kind_by_name("c.wav"), kind_by_name("what is this?")
    ('picture', 'clip', 'sound', None)
    """
    extension = os.path.splitext(name)[1].lower()
    if extension in IMAGE_EXTENSIONS:
        return "picture"
    if extension in CLIP_EXTENSIONS:
        return "clip"
    return "sound" if extension in SOUND_EXTENSIONS else None


def container_of(head: bytes) -> str | None:
    """Returns the container that a clip's first bytes announce; None where they are no clip's.

    >>> container_of(b"....ftypisom"), container_of(b"....ftypavif"), container_of(b"#EXTM3U")
    ('mov', None, None)
    """
    if re.match(_STILL_IMAGES, head, re.DOTALL):
        return None
    return next((name for pattern, name in _CONTAINERS if re.match(pattern, head, re.DOTALL)), None)


def kind_of(head: bytes, name: str = "") -> MediaKind:
    """Returns what a file is by its first bytes; by its name where they tell nothing.

    Args:
        head: the first HEAD_BYTES of it.
        name: its name or path.
    """
    if re.match(_SOUNDS, head, re.DOTALL):
        return "sound"
    if container_of(head) is not None:
        return "clip"
    if not isinstance(identify(head), NoImage):
        return "picture"
    return kind_by_name(name) or "picture"


def something_else(kind: Literal["clip", "sound"], head: bytes, place: str, formats: str) -> InputError:
    """Returns the error of a file that is no clip, or no sound: it says what it is.

    Args:
        kind: what it should be.
        head: the first HEAD_BYTES of it.
        place: what to call it.
        formats: those that are read, in words.
    """
    content = identify(head)
    if not isinstance(content, NoImage):
        return refusal(kind, place, "format", f"its format is {content}, a picture", "Name it as one")
    if content.code == "unreadable":
        return refusal(kind, place, "unreadable", f"not a readable {kind}", f"Give a {formats} file")
    advice = f"Convert it to {formats}" if content.code == "format" else content.advice
    return refusal(kind, place, content.code, content.why.replace("not an image", f"not a {kind}"), advice)
