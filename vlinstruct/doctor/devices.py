"""What can compute here, how much memory it has, and whether what was asked for is there."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vlinstruct.doctor.finding import Finding, notice, ok, problem
from vlinstruct.doctor.wanted import Wanted
from vlinstruct.errors import VlinstructError
from vlinstruct.weights.memory import available_bytes

if TYPE_CHECKING:
    import torch

_GB = 10**9
_BFLOAT16_CAPABILITY = (8, 0)  # Ampere


def processor(wanted: Wanted) -> Iterator[Finding]:
    """Cores, threads and memory."""
    import torch

    free, cores = available_bytes(), _num_cores()
    memory = "free memory unknown" if free is None else f"{free / _GB:.1f} GB of memory free"
    yield ok("processor", f"{cores} cores, threads of torch: {torch.get_num_threads()}, {memory}")
    if free is not None and free < _GB:
        yield notice("memory", f"only {free / _GB:.1f} GB are free", "Close other programs")


def _num_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux: what a job or container may use
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def gpu(wanted: Wanted) -> Iterator[Finding]:
    """Every CUDA device, or MPS; where there is none, why an NVIDIA GPU is not seen."""
    import torch

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        is_available = torch.cuda.is_available()
    if is_available:
        yield from (_gpu(index) for index in range(torch.cuda.device_count()))
    elif torch.backends.mps.is_available():
        yield ok("gpu", "Apple's (mps), shares the machine's memory")
    else:
        yield _no_gpu(torch.version.cuda, is_warned=bool(warned))


def _gpu(index: int) -> Finding:
    import torch

    free, total = torch.cuda.mem_get_info(index)
    memory = f"{free / _GB:.1f} of {total / _GB:.1f} GB free"
    described = f"cuda:{index} {torch.cuda.get_device_name(index)}, {memory}"
    if torch.cuda.get_device_capability(index) < _BFLOAT16_CAPABILITY:
        return notice("gpu", f"{described}, no bfloat16", "Use --dtype float16 (Vicuna) or float32 (FlanT5) on it")
    return ok("gpu", f"{described}, bfloat16")


def _no_gpu(cuda: str | None, *, is_warned: bool) -> Finding:
    """Says that there is none, or why one that is there is not seen.

    Args:
        cuda: the version that torch was built for; None for its CPU build.
        is_warned: whether torch complained when it looked.
    """
    visible, has_driver = os.environ.get("CUDA_VISIBLE_DEVICES"), shutil.which("nvidia-smi") is not None
    if has_driver and cuda is None:
        fix = "Install one of torch's CUDA builds: https://pytorch.org/get-started/locally"
        return notice("gpu", "an NVIDIA driver is here, but this torch is a CPU build", fix)
    if cuda is not None and visible is not None:
        found = f"none is seen, CUDA_VISIBLE_DEVICES is {visible!r}"
        return notice("gpu", found, "Unset it, or name devices that nvidia-smi lists")
    if has_driver or is_warned:
        return notice("gpu", f"torch for CUDA {cuda} sees none", "Update NVIDIA's driver, or see what nvidia-smi says")
    return ok("gpu", "none, the CPU computes")


def device(wanted: Wanted) -> Iterator[Finding]:
    """Whether what was asked for is there, and what the environment's default names."""
    from vlinstruct.backends.instructblip.opening import compute_dtype

    names = {wanted.device: "--device"}
    if os.environ.get("VLINSTRUCT_DEVICE"):
        names[os.environ["VLINSTRUCT_DEVICE"]] = "$VLINSTRUCT_DEVICE"
    for value, name in names.items():
        if _usable(value) is None:
            yield problem("device", f"{name} is {value!r}, which is not available here", "Use auto or cpu")
    chosen = _usable(wanted.device)
    if chosen is not None:
        dtype = str(compute_dtype(wanted.dtype, chosen)).removeprefix("torch.")
        yield ok("device", f"commands compute on {chosen} in {dtype}")


def _usable(name: str) -> torch.device | None:
    from vlinstruct.backends.instructblip.opening import compute_device

    try:
        return compute_device(name)
    except VlinstructError:
        return None
