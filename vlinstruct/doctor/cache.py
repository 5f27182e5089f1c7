"""The hub's cache on this machine, and whether the hub can be reached."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vlinstruct.backends.registry import BACKBONES, Backbone, is_cached, resolve
from vlinstruct.doctor.finding import DoctorSettings, Finding, notice, ok, problem
from vlinstruct.errors import VlinstructError
from vlinstruct.weights.hub import cached_folder, damages

_GB = 10**9
_TIMEOUT_S = 5
_PLACES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")
_MOVE = "Set HF_HOME to a folder that can be written"


def cache(settings: DoctorSettings) -> Iterator[Finding]:
    """Where the cache lies and whether it can be written; it must be, where something has to be downloaded."""
    place = _place()
    source = next((f" (${name})" for name in _PLACES if os.environ.get(name)), "")
    why = _why_unwritable(place)
    if why is None:
        yield ok("cache", f"{place}{source}, can be written")
    elif _is_missing(settings):
        yield problem("cache", f"{place}{source} {why}, and {settings.backbone} has to be downloaded", _MOVE)
    else:
        yield notice("cache", f"{place}{source} {why}: nothing can be downloaded", _MOVE)


def _place() -> Path:
    """Returns the cache's folder; the library itself says where, since four variables decide."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _existing(path: Path) -> Path:
    """Returns the path or the nearest folder above it that is there."""
    return next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))


def _why_unwritable(cache: Path) -> str | None:
    if not cache.is_absolute():
        return "is no absolute path (is HOME set?)"
    existing = _existing(cache)
    if not existing.is_dir():
        return f"cannot be made, {existing} is no folder"
    return None if os.access(existing, os.W_OK | os.X_OK) else "cannot be written"


def _is_missing(settings: DoctorSettings) -> bool:
    """Says whether the examined backbone would have to be downloaded."""
    try:
        source = resolve(settings.backbone)
    except VlinstructError:
        return False
    return isinstance(source, str) and cached_folder(source) is None


def disk(settings: DoctorSettings) -> Iterator[Finding]:
    """What is free where the cache lies."""
    free = shutil.disk_usage(_existing(_place())).free  # the cache may not be there yet
    needed = BACKBONES[settings.backbone].download_gb * _GB if settings.backbone in BACKBONES else 0
    if _is_missing(settings) and free < needed:
        message = f"{free / _GB:.1f} GB free, {settings.backbone} takes {needed / _GB:.0f} GB"
        yield notice("disk", message, "Free some space, or set HF_HOME to another disk")
    elif free < _GB:
        yield notice("disk", f"only {free / _GB:.1f} GB free where the cache lies", "Free some space")
    else:
        yield ok("disk", f"{free / _GB:.1f} GB free where the cache lies")


def cached_backbones(settings: DoctorSettings) -> Iterator[Finding]:
    """Which of the known backbones are in the cache, and which of their files are damaged or incomplete."""
    on_hub = [backbone for backbone in BACKBONES.values() if backbone.hub_id is not None]
    cached = [backbone.name for backbone in on_hub if is_cached(backbone)]
    yield ok("cached backbones", ", ".join(cached) or "none of those that are known by name")
    for backbone in on_hub:
        if settings.backbone not in (backbone.name, backbone.hub_id):  # the examined one's own checks name its files
            yield from _damaged_snapshot(backbone)
        yield from _interrupted_download(backbone)


def _damaged_snapshot(backbone: Backbone) -> Iterator[Finding]:
    assert backbone.hub_id is not None
    folder = cached_folder(backbone.hub_id)
    for damage in damages(folder) if folder is not None else []:
        yield notice(f"cached {backbone.name}", f"{damage.path}: {damage.why}", damage.advice)
    if folder is not None and not is_cached(backbone):
        fix = f"Run any command with --backbone {backbone.name}: it resumes the download"
        yield notice(f"cached {backbone.name}", "only a part of it is in the cache", fix)


def _interrupted_download(backbone: Backbone) -> Iterator[Finding]:
    assert backbone.hub_id is not None
    blobs = _place() / f"models--{backbone.hub_id.replace('/', '--')}" / "blobs"
    partial = list(blobs.glob("*.incomplete"))
    if partial:
        size = sum(path.stat().st_size for path in partial) / _GB
        message = f"{len(partial)} files ({size:.1f} GB) of a download that was interrupted, or is running"
        yield notice(f"cached {backbone.name}", message, f"If none is running, delete {blobs}/*.incomplete")


def hub(settings: DoctorSettings) -> Iterator[Finding]:
    """Whether the hub answers.

    One HEAD request, and none offline. Not reaching it is a notice: everything that is cached works without it.
    """
    from huggingface_hub import constants, get_session

    if settings.offline or constants.HF_HUB_OFFLINE:
        yield ok("hub", "not contacted: offline")
        return
    try:
        status = get_session().head(constants.ENDPOINT, timeout=_TIMEOUT_S).status_code
    except Exception as error:  # an address of nonsense raises ValueError, a proxy what it likes
        message = f"{constants.ENDPOINT} cannot be reached ({type(error).__name__})"
        yield notice("hub", message, "Check the network and HTTPS_PROXY; what is cached works with --offline")
        return
    if status >= 500:
        yield notice("hub", f"{constants.ENDPOINT} has a problem ({status})", "Try again later, or use --offline")
    else:
        yield ok("hub", f"{constants.ENDPOINT} answers")
