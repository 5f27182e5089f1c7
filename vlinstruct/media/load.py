"""Reads a picture, a clip or a sound, whichever a file is: by its first bytes, and by its name where they tell nothing.

What a backend does not take is refused before it is decoded. A file whose name ends like a picture's is read as one,
whatever is in it: a folder of pictures is opened once each.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from io import TextIOBase
from typing import TYPE_CHECKING, BinaryIO, cast

from PIL import Image

from vlinstruct.backend import not_taken
from vlinstruct.files import open_regular
from vlinstruct.media.clips import ClipLike, ClipLimits, load_clip, require_av
from vlinstruct.media.images import DEFAULT_LIMITS, ImageLike, ImageLimits, is_url, load_image
from vlinstruct.media.kinds import HEAD_BYTES, kind_by_name, kind_of
from vlinstruct.media.sounds import SoundLike, SoundLimits, load_sound, require_soundfile
from vlinstruct.settings import ClipSettings
from vlinstruct.values import Abilities, Clip, MediaKind, Sound

if TYPE_CHECKING:
    from vlinstruct.values import Media

    MediaLike = ImageLike | Clip | Sound

logger = logging.getLogger(__name__)

_PACKAGES: dict[MediaKind, tuple[str, ...]] = {"picture": (), "clip": ("av",), "sound": ("soundfile", "soxr")}


@dataclass(frozen=True, kw_only=True)
class MediaSettings:
    """How media are read.

    Args:
        images: how large a picture may be, and how whole; its `max_pixels` hold for a clip's frames, too.
        clips: which frames of a clip are used.
        clip_limits: how large a clip may be.
        sound_limits: how long a sound may be.
    """

    images: ImageLimits = DEFAULT_LIMITS
    clips: ClipSettings = ClipSettings()
    clip_limits: ClipLimits = ClipLimits()
    sound_limits: SoundLimits = SoundLimits()


@dataclass(frozen=True, kw_only=True)
class LoadedMedium:
    """A picture, clip or sound as the models take it.

    Args:
        medium: the value.
        notices: what a user should know, e.g. that it was cut off; each names the file.
    """

    medium: Media
    notices: tuple[str, ...] = ()


def load_medium(
    source: MediaLike,
    *,
    name: str | None = None,
    settings: MediaSettings = MediaSettings(),
    abilities: Callable[[], Abilities | None] = lambda: None,
) -> LoadedMedium:
    """Reads a picture, a clip or a sound.

    Args:
        source: a path, the file's content, a binary file object, an array, or a value that was read already.
        name: what to call it in messages.
        settings: how it is read.
        abilities: what the backend takes, and how many frames; asked for where it is no picture. None takes all.

    Raises:
        InputError: it cannot be read, or is not taken.
        ResourceError: the package that reads it is not installed.
    """
    kind = _kind_of(source, name)
    can = Abilities() if kind == "picture" else abilities()
    if can is not None and kind not in can.media:
        path = os.fspath(source) if isinstance(source, str | os.PathLike) else ""
        raise not_taken(kind, can, name or path)
    if isinstance(source, Clip | Sound):
        return LoadedMedium(medium=source)
    if kind == "clip":
        clips, limits = settings.clips, replace(settings.clip_limits, max_pixels=settings.images.max_pixels)
        if can is not None and clips == ClipSettings():
            clips = replace(clips, num_frames=can.num_frames)
        clip = load_clip(cast(ClipLike, source), name=name, settings=clips, limits=limits)
        return LoadedMedium(medium=clip.clip, notices=clip.notices)
    if kind == "sound":
        sound = load_sound(cast(SoundLike, source), name=name, limits=settings.sound_limits)
        return LoadedMedium(medium=sound.sound, notices=sound.notices)
    image = load_image(source, name=name, limits=settings.images)
    return LoadedMedium(medium=image.image, notices=image.notices)


def _kind_of(source: MediaLike, name: str | None) -> MediaKind:
    if isinstance(source, Clip):
        return "clip"
    if isinstance(source, Sound):
        return "sound"
    if isinstance(source, str | os.PathLike):
        named = kind_by_name(os.fspath(source))
        if named == "picture" or is_url(source):
            return "picture"
        with open_regular(source, kind="image" if named is None else named) as stream:
            return kind_of(stream.read(HEAD_BYTES), os.fspath(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return kind_of(bytes(source[:HEAD_BYTES]), name or "")
    # A file that cannot be read twice is a picture, as is what its reader refuses in words.
    file = cast("BinaryIO", source)
    if isinstance(source, Image.Image | TextIOBase) or not hasattr(source, "read") or not file.seekable():
        return "picture"
    start = file.tell()
    head = file.read(HEAD_BYTES)
    file.seek(start)
    return kind_of(head, name or "")


@cache
def is_readable(kind: MediaKind) -> bool:
    """Says whether the packages that read a kind are installed; nothing is imported."""
    return all(find_spec(package) is not None for package in _PACKAGES[kind])


def require_readers(names: Iterable[str]) -> None:
    """Makes sure that files of these names can be read, before a model is loaded.

    Raises:
        ResourceError: a package is not installed.
    """
    kinds = {kind_by_name(name) for name in names}
    if "clip" in kinds:
        require_av()
    if "sound" in kinds:
        require_soundfile()
