"""What a person means to run: the options that other commands have, too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is examined.

    Args:
        backbone: a name, a folder or a hub id.
        adapter: trained alignment layers for it.
        device: as `vlinstruct.load` takes it.
        dtype: as `vlinstruct.load` takes it.
        offline: whether no connection is opened.
    """

    backbone: str
    adapter: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    offline: bool = False
