"""What the environment's variables say, where it is not what their authors meant."""

from __future__ import annotations

import os
from collections.abc import Iterator

from vlinstruct.backends.registry import resolve
from vlinstruct.doctor.finding import Finding, notice, ok, problem
from vlinstruct.doctor.wanted import Wanted
from vlinstruct.errors import VlinstructError

_SWITCHES = ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS")
_ON, _OFF = ("1", "ON", "YES", "TRUE"), ("", "0", "OFF", "NO", "FALSE")  # huggingface_hub takes all but _ON for off
_NAMES = (
    *("VLINSTRUCT_BACKBONE", "VLINSTRUCT_DEVICE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", *_SWITCHES),
)


def variables(wanted: Wanted) -> Iterator[Finding]:
    """Lists what is set, then what of it is wrong; a token is never among it."""
    values = [f"{name}={os.environ[name]}" for name in _NAMES if name in os.environ]
    yield ok("environment", ", ".join(values) or "none of our variables is set")
    for name in _SWITCHES:
        yield from _switch(name)
    yield from _default_backbone(wanted)
    yield from _endpoint()


def _switch(name: str) -> Iterator[Finding]:
    value = os.environ.get(name, "")
    if value.upper() not in (*_ON, *_OFF):
        yield notice(f"${name}", f"{value!r} is neither on nor off, and is taken for off", f"Set {name} to 1 or 0")


def _default_backbone(wanted: Wanted) -> Iterator[Finding]:
    value = os.environ.get("VLINSTRUCT_BACKBONE", "")
    if not value or value == wanted.backbone:  # then the backbone's own checks say it
        return
    try:
        resolve(value)
    except VlinstructError as error:
        fix = "Unset it, or set it to mini, a paper backbone's name, a folder or a hub id"
        yield problem("$VLINSTRUCT_BACKBONE", error.problem, fix)


def _endpoint() -> Iterator[Finding]:
    value = os.environ.get("HF_ENDPOINT")
    if value is not None and not value.startswith(("https://", "http://")):
        fix = "Unset HF_ENDPOINT, or set it to an address like https://huggingface.co"
        yield notice("$HF_ENDPOINT", f"{value!r} is no http(s) address: nothing can be downloaded", fix)
