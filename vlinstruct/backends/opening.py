"""From a backbone's name to a loaded backend: which of them runs it is decided here, by its config.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

from vlinstruct.backend import Backend
from vlinstruct.backends.machine import require_machine
from vlinstruct.backends.registry import default_backbone, find, is_instructblip, known_backbone
from vlinstruct.errors import InputError
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
    main, number_type = require_machine(device, dtype, quantize)
    entry = None if isinstance(backbone, Identity) else known_backbone(fspath(backbone or default_backbone()))
    if entry is not None:  # so that a known model is not downloaded for an option that it does not have
        require_options(entry.name, entry.config(), adapter=adapter, image_size=image_size, think=think)
    identity = backbone if isinstance(backbone, Identity) else find(backbone, offline=offline)
    require_options(identity.name, identity.config, adapter=adapter, image_size=image_size, think=think)
    # Imported here: a command on mini shall not wait for transformers, nor one on another model for our network.
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


def require_options(
    name: str, config: Mapping[str, Any], *, adapter: object | None, image_size: int | None, think: bool
) -> None:
    """Refuses options that belong to other kinds of models.

    Args:
        name: what messages call the model.
        config: the content of its config.json.
        adapter: as in `vlinstruct.load`.
        image_size: as in `vlinstruct.load`.
        think: as in `vlinstruct.load`.

    Raises:
        InputError: with the option.
    """
    is_ours = is_instructblip(config)
    for option, is_given, why in (
        ("--think", is_ours and think, "it does not think before it answers"),
        ("--adapter", not is_ours and adapter is not None, "adapters are for models of the InstructBLIP family alone"),
        ("--image-size", not is_ours and image_size is not None, "it reads pictures at sizes of its own"),
    ):
        if is_given:
            raise InputError.at(f"cannot use {option}", name, why, "Leave it out")
