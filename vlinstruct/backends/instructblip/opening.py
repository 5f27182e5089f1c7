"""From a backbone's name and what the user wants of it to a loaded backend: folder, device, dtype, memory, adapter.

Apart from `load`, which memory plans, adapters and conversions take shapes from: it knows nothing of them.
"""

from __future__ import annotations

import logging
from os import PathLike

from vlinstruct.backends.instructblip.adapter import load_adapter
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import load_model
from vlinstruct.backends.instructblip.memory import place
from vlinstruct.backends.instructblip.prepacked import is_prepacked
from vlinstruct.backends.machine import require_machine
from vlinstruct.backends.recordings import recordings_on
from vlinstruct.backends.registry import find, find_adapter
from vlinstruct.errors import shortened
from vlinstruct.settings import Quantization
from vlinstruct.values import Identity

logger = logging.getLogger(__name__)


def load_backend(
    backbone: str | PathLike[str] | Identity | None = None,
    *,
    adapter: str | PathLike[str] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quantize: Quantization | None = None,
    image_size: int | None = None,
    compile: bool = False,
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
        compile: as `vlinstruct.load` takes it.
        offline: use what is cached, open no connection.

    Raises:
        VlinstructError: as in `vlinstruct.load`.
    """
    # The cheapest refusals first: a device, a dtype or a library that is missing is told before a download begins, and
    # a model that does not fit before a tensor is read.
    main, number_type = require_machine(device, dtype, quantize, compile=compile)
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
    # Behind the adapter: a recording computes with the weights that there were.
    if compile:
        is_spread = bool(placement.elsewhere or placement.offloaded)
        backend.recordings = recordings_on(
            main, identity.name, is_spread=is_spread, is_prepacked=is_prepacked(backend.network)
        )
    return backend
