"""From a backbone's name to a loaded backend: which of them runs it is decided here, by its config.json alone."""

from __future__ import annotations

from os import PathLike, fspath

from vlinstruct.backend import Backend
from vlinstruct.backends.registry import default_backbone, find, is_instructblip, require_options
from vlinstruct.backends.server.address import is_url
from vlinstruct.settings import ModelSettings
from vlinstruct.values import Identity


def load_backend(backbone: str | PathLike[str] | Identity | None, settings: ModelSettings) -> Backend:
    """Loads a model, or connects to the server that runs it.

    Args:
        backbone: what to load; the settings' if None.
        settings: how; the meaning and the errors are those of `vlinstruct.load`.
    """
    named = settings.backbone if backbone is None else backbone
    adapter, size, compile, think = settings.adapter, settings.image_size, settings.compile, settings.think
    if not isinstance(named, Identity):
        named = fspath(named or default_backbone())
        require_options(named, adapter=adapter, image_size=size, compile=compile, think=think)
    # Imported here, not above: a server's client needs no torch, mini no transformers, and no other model our network.
    if is_url(named if isinstance(named, str) else named.name):
        from vlinstruct.backends.server.opening import connect

        return connect(named if isinstance(named, Identity) else find(named, offline=settings.offline), settings)
    from vlinstruct.backends.machine import require_machine

    # Before anything is downloaded.
    main, number_type = require_machine(settings.device, settings.dtype, settings.quantize, compile=compile)
    identity = named if isinstance(named, Identity) else find(named, offline=settings.offline)
    require_options(identity.name, identity.config, adapter=adapter, image_size=size, compile=compile, think=think)
    if is_instructblip(identity.config):
        from vlinstruct.backends.instructblip import opening as instructblip

        return instructblip.load_backend(
            identity,
            adapter=adapter,
            device=settings.device,
            dtype=settings.dtype,
            quantize=settings.quantize,
            image_size=size,
            compile=compile,
            offline=settings.offline,
        )
    from vlinstruct.backends.transformers.opening import open_backend

    return open_backend(
        identity,
        device=main,
        dtype=number_type,
        quantize=settings.quantize,
        may_spread=settings.device == "auto",
        compile=compile,
        think=think,
    )
