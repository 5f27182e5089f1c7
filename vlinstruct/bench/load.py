"""Loads a backbone twice: as ours, and as transformers' model of the same folder."""

from __future__ import annotations

from typing import Any

import torch

from vlinstruct.backends.registry import find
from vlinstruct.model import Model, load
from vlinstruct.values import Identity
from vlinstruct.weights.quantization import hushed


def use_threads(threads: int | None) -> None:
    """Gives torch so many CPU threads, or leaves it its own choice."""
    if threads is not None:
        torch.set_num_threads(threads)


def architecture() -> Any:
    """Returns transformers' InstructBLIP class, its log lines and progress bars switched off."""
    with hushed():  # it imports torchao, where that is installed
        from transformers import InstructBlipForConditionalGeneration
        from transformers.utils import logging
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return InstructBlipForConditionalGeneration


def image_processor(image_size: int) -> Any:
    """Returns transformers' image processor for pictures that become squares, with whichever backend it has here."""
    from transformers import BlipImageProcessor

    return BlipImageProcessor(size={"height": image_size, "width": image_size})


def load_both(backbone: str | Identity | None, *, device: str, dtype: str, offline: bool) -> tuple[Model, Any]:
    """Loads both models.

    Args:
        backbone: a name, a folder or a hub id; `$VLINSTRUCT_BACKBONE` or mini if None.
        device: as `vlinstruct.load` takes it.
        dtype: as `vlinstruct.load` takes it.
        offline: use what is cached, open no connection.
    """
    model_class = architecture()
    identity = backbone if isinstance(backbone, Identity) else find(backbone, offline=offline)
    pipeline = load(identity, device=device, dtype=dtype)
    theirs = model_class.from_pretrained(
        identity.folder, dtype=pipeline.backend.dtype, local_files_only=True, use_safetensors=True
    )
    return pipeline, theirs.to(pipeline.backend.device).eval()
