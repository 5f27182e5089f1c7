"""From a backbone's name to a loaded backend: which of them runs it is decided here, by its config.json alone."""

from __future__ import annotations

from os import PathLike

from vlinstruct.backend import Backend
from vlinstruct.backends.machine import require_machine
from vlinstruct.backends.registry import find, is_instructblip
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
    main, number_type = require_machine(device, dtype, quantize)  # before anything is downloaded
    identity = backbone if isinstance(backbone, Identity) else find(backbone, offline=offline)
    # Here, not above: a command on mini shall not wait for transformers, nor one on another model for our network.
    require_options(identity, adapter=adapter, image_size=image_size, think=think)
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


def require_options(identity: Identity, *, adapter: object | None, image_size: int | None, think: bool) -> None:
    """Refuses options that belong to other kinds of models.

    Raises:
        InputError: with the option.
    """
    is_ours = is_instructblip(identity.config)
    if think and is_ours:
        raise _not_for(identity, "--think", "it does not think before it answers")
    if adapter is not None and not is_ours:
        raise _not_for(identity, "--adapter", "alignment layers belong to models of the InstructBLIP family")
    if image_size is not None and not is_ours:
        raise _not_for(identity, "--image-size", "it reads pictures at sizes of its own")


def _not_for(identity: Identity, option: str, why: str) -> InputError:
    return InputError.at(f"cannot use {option}", identity.name, why, "Leave it out")
