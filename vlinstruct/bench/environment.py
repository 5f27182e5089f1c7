"""What a measurement was made on."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import torch

from vlinstruct.backends.instructblip.backend import InstructBlipBackend


def environment(model: InstructBlipBackend) -> dict[str, Any]:
    """Returns versions, device, dtype and threads."""
    is_cuda = model.device.type == "cuda"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "device": torch.cuda.get_device_name(model.device) if is_cuda else str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }
