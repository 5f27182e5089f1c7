"""From a backbone's name and what the user wants of it to a loaded backend: folder, device, dtype, memory, adapter.

Apart from `load`, which memory plans, adapters and conversions take shapes from: it knows nothing of them.
"""

from __future__ import annotations

import logging
from os import PathLike

import torch

from vlinstruct.backends.instructblip.adapter import load_adapter
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import load_model
from vlinstruct.backends.instructblip.memory import place
from vlinstruct.backends.registry import find, find_adapter
from vlinstruct.errors import InputError, shortened
from vlinstruct.settings import Quantization
from vlinstruct.values import Identity
from vlinstruct.weights.quantization import require_quantization

logger = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_backend(
    backbone: str | PathLike[str] | Identity | None = None,
    *,
    adapter: str | PathLike[str] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quantize: Quantization | None = None,
    image_size: int | None = None,
    offline: bool = False,
) -> InstructBlipBackend:
    """Loads a model of the InstructBLIP family.

    Args:
        backbone: a shipped name, a folder, a hub id or what `find` returned; `$VLINSTRUCT_BACKBONE` or mini if None.
        adapter: a shipped adapter's name, a folder or a hub id; None for the backbone alone.
        device: torch's name of one, or `auto`.
        dtype: `float32`, `bfloat16`, `float16` or `auto`.
        quantize: how the language model is stored.
        image_size: side in pixels that pictures are read at; the model's own if None.
        offline: use what is cached, open no connection.

    Raises:
        VlinstructError: as in `vlinstruct.load`.
    """
    # The cheapest refusals first: a device, a dtype or a library that is missing is told before a download begins, and
    # a model that does not fit before a tensor is read.
    main, number_type = require_machine(device, dtype, quantize)
    identity = backbone if isinstance(backbone, Identity) else find(backbone, offline=offline)
    placement = place(identity, main, itemsize=number_type.itemsize, quantize=quantize, may_spread=device == "auto")
    backend = load_model(
        identity, device=main, dtype=number_type, quantize=quantize, placement=placement, image_size=image_size
    )
    if adapter is not None:
        config = load_adapter(find_adapter(str(adapter), offline=offline), backend.network)
        own_size = InstructBlipConfig.from_dict(identity.config).vision_config.image_size
        trained_size = config.training.get("image_size") or own_size
        if trained_size != (image_size or own_size):
            logger.warning(
                "the adapter was trained on pictures of %s pixels, these are read at %s (--image-size)",
                shortened(str(trained_size), 20),
                image_size or own_size,
            )
    return backend


def require_machine(device: str, dtype: str, quantize: Quantization | None) -> tuple[torch.device, torch.dtype]:
    """Returns the device and the dtype that `load` means.

    Raises:
        InputError: there is no such device or dtype, or the device cannot hold quantized layers.
        ResourceError: a library for these is missing.
    """
    main = compute_device(device)
    number_type = compute_dtype(dtype, main)
    if quantize is not None:
        require_quantization(quantize, main)
    return main, number_type


def compute_device(name: str) -> torch.device:
    """Returns the device that `load` means by a name.

    Raises:
        InputError: there is none here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` makes tensors, but they hold nothing
    except (RuntimeError, AssertionError) as error:
        raise InputError.at("cannot use --device", name, "not available here", "Use --device cpu") from error
    return torch.device("cpu") if device.type == "cpu" else device  # safetensors knows no cpu:0


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """Returns the dtype that `load` means by a name.

    Raises:
        InputError: there is no such dtype.
    """
    if name == "auto":
        # Never float16: T5 overflows in it.
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise InputError.at("cannot use --dtype", name, "unknown", f"Use auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]
