"""From a backbone's name to a loaded backend: which of them runs it is decided here, by its config.json alone."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any

from vlinstruct.backend import Backend
from vlinstruct.backends.machine import require_machine
from vlinstruct.backends.registry import default_backbone, find, is_instructblip, require_options
from vlinstruct.settings import Quantization
from vlinstruct.values import Identity


def load_backend(
    backbone: str | PathLike[str] | Identity | None = None,
    *,
    adapter: str | PathLike[str] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quantize: Quantization | None = None,
    image_size: int | None = None,
    think: bool = False,
    offline: bool = False,
) -> Backend:
    """Loads a model; the arguments and errors are those of `vlinstruct.load`."""
    main, number_type = require_machine(device, dtype, quantize)  # before anything is downloaded
    options: dict[str, Any] = {"adapter": adapter, "image_size": image_size, "think": think}
    if not isinstance(backbone, Identity):
        require_options(fspath(backbone or default_backbone()), **options)
    identity = backbone if isinstance(backbone, Identity) else find(backbone, offline=offline)
    require_options(identity.name, identity.config, **options)
    # Here, not above: a command on mini shall not wait for transformers, nor one on another model for our network.
    if is_instructblip(identity.config):
        from vlinstruct.backends.instructblip import opening as instructblip

        return instructblip.load_backend(
            identity,
            adapter=adapter,
            device=device,
            dtype=dtype,
            quantize=quantize,
            image_size=image_size,
            offline=offline,
        )
    from vlinstruct.backends.transformers.opening import open_backend

    return open_backend(
        identity, device=main, dtype=number_type, quantize=quantize, may_spread=device == "auto", think=think
    )
