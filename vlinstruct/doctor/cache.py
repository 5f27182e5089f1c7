"""The hub's cache on this machine, and whether the hub can be reached."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vlinstruct.backends.registry import BACKBONES, Backbone, is_cached, resolve
from vlinstruct.doctor.finding import Finding, notice, ok, problem
from vlinstruct.doctor.wanted import Wanted
from vlinstruct.errors import VlinstructError
from vlinstruct.weights.download import cached_folder, damages

_GB = 10**9
_TIMEOUT_S = 5
_PLACES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")
_MOVE = "Set HF_HOME to a folder that can be written"


def cache(wanted: Wanted) -> Iterator[Finding]:
    """Where the cache lies and whether it can be written; it must be, where something has to be downloaded."""
    place = _place()
    decided = next((f" (${name})" for name in _PLACES if os.environ.get(name)), "")
    why = _why_unwritable(place)
    if why is None:
        yield ok("cache", f"{place}{decided}, can be written")
    elif _is_missing(wanted):
        yield problem("cache", f"{place}{decided} {why}, and {wanted.backbone} has to be downloaded", _MOVE)
    else:
        yield notice("cache", f"{place}{decided} {why}: nothing can be downloaded", _MOVE)


def _place() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _existing(path: Path) -> Path:
    """Returns the path or the nearest folder above it that is there."""
    return next(one for one in (path, *path.absolute().parents) if os.path.lexists(one))


def _why_unwritable(cache: Path) -> str | None:
    if not cache.is_absolute():
        return "is no absolute path (is HOME set?)"
    existing = _existing(cache)
    if not existing.is_dir():
        return f"cannot be made, {existing} is no folder"
    return None if os.access(existing, os.W_OK | os.X_OK) else "cannot be written"


def _is_missing(wanted: Wanted) -> bool:
    """Says whether the examined backbone would have to be downloaded."""
    try:
        found = resolve(wanted.backbone)
    except VlinstructError:
        return False
    return isinstance(found, str) and cached_folder(found) is None


def disk(wanted: Wanted) -> Iterator[Finding]:
    """What is free where the cache lies."""
    free = shutil.disk_usage(_existing(_place())).free
    needed = BACKBONES[wanted.backbone].download_gb * _GB if wanted.backbone in BACKBONES else 0
    if _is_missing(wanted) and free < needed:
        found = f"{free / _GB:.1f} GB free, {wanted.backbone} takes {needed / _GB:.0f} GB"
        yield notice("disk", found, "Free some space, or set HF_HOME to another disk")
    elif free < _GB:
        yield notice("disk", f"only {free / _GB:.1f} GB free where the cache lies", "Free some space")
    else:
        yield ok("disk", f"{free / _GB:.1f} GB free where the cache lies")


def cached_backbones(wanted: Wanted) -> Iterator[Finding]:
    """Which of the known backbones are in the cache, and what of them is not whole; the examined one has its own."""
    hub_ones = [one for one in BACKBONES.values() if one.hub_id is not None]
    here = [one.name for one in hub_ones if is_cached(one)]
    yield ok("cached backbones", ", ".join(here) or "none of those that are known by name")
    for backbone in hub_ones:
        if wanted.backbone not in (backbone.name, backbone.hub_id):
            yield from _damaged(backbone)
        yield from _broken_off(backbone)


def _damaged(backbone: Backbone) -> Iterator[Finding]:
    assert backbone.hub_id is not None
    folder = cached_folder(backbone.hub_id)
    for damage in damages(folder) if folder is not None else []:
        yield notice(f"cached {backbone.name}", f"{damage.path}: {damage.why}", damage.advice)
    if folder is not None and not is_cached(backbone):
        fix = f"Run any command with --backbone {backbone.name}: it goes on with the download"
        yield notice(f"cached {backbone.name}", "only a part of it is in the cache", fix)


def _broken_off(backbone: Backbone) -> Iterator[Finding]:
    assert backbone.hub_id is not None
    blobs = _place() / f"models--{backbone.hub_id.replace('/', '--')}" / "blobs"
    partial = list(blobs.glob("*.incomplete"))
    if partial:
        size = sum(path.stat().st_size for path in partial) / _GB
        found = f"{len(partial)} files ({size:.1f} GB) of a download that broke off, or runs now"
        yield notice(f"cached {backbone.name}", found, f"Where none runs, delete {blobs}/*.incomplete")


def hub(wanted: Wanted) -> Iterator[Finding]:
    """Whether the hub answers; asks nothing of it, and nothing at all offline."""
    from huggingface_hub import constants, get_session

    if wanted.offline or constants.HF_HUB_OFFLINE:
        yield ok("hub", "not asked: offline")
        return
    try:
        status = get_session().head(constants.ENDPOINT, timeout=_TIMEOUT_S).status_code
    except Exception as error:  # an address of nonsense raises ValueError, a proxy what it likes
        found = f"{constants.ENDPOINT} cannot be reached ({type(error).__name__})"
        yield notice("hub", found, "Check the network and HTTPS_PROXY; what is cached works with --offline")
        return
    if status >= 500:
        yield notice("hub", f"{constants.ENDPOINT} has a problem ({status})", "Try again later, or use --offline")
    else:
        yield ok("hub", f"{constants.ENDPOINT} answers")
