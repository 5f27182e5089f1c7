"""The versions that decide about the last decimals of a score."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("vlinstruct", "torch", "tokenizers", "pillow")


def versions() -> dict[str, str]:
    """Returns them by package, and Python's; packages that are not installed as such are left out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
