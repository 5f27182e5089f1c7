"""The device and the number type that a user's words mean, checked before anything is downloaded or read."""

from __future__ import annotations

import torch

from vlinstruct.backends.recordings import require_compilation
from vlinstruct.errors import InputError
from vlinstruct.settings import Quantization
from vlinstruct.weights.quantization import require_quantization

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def require_machine(
    device: str, dtype: str, quantize: Quantization | None, *, compile: bool = False
) -> tuple[torch.device, torch.dtype]:
    """Returns the device and the dtype that `load` means.

    Raises:
        InputError: there is no such device or dtype, or the device cannot hold quantized layers or record kernels.
        ResourceError: a library for these is missing.
    """
    main = compute_device(device)
    number_type = compute_dtype(dtype, main)
    if quantize is not None:
        require_quantization(quantize, main)
    if compile:
        require_compilation(main, quantize)
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


def keep_freed_memory() -> None:
    """Lets glibc keep up to 64 MB of what is freed, for this process: the next batch needs as much again.

    glibc gives freed memory back to the system, which clears every page of it anew: 20 of the 77 ms that 16 pictures
    take in mini's vision tower (two cores of an EPYC 7003). What it gives back is more than twice the largest block
    that it has mapped and freed, of up to 32 MB. One that nobody has written to costs nothing.

    Source: mallopt(3), M_MMAP_THRESHOLD.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)
