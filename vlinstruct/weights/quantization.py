"""Language models in 8 or 4 bits: one linear layer after the other, so that the whole never lies there twice.

On CUDA both are bitsandbytes'. On a CPU 8 bits are torchao's: a token through a 2048 x 5120 layer took 8 ms with it,
190 ms with bitsandbytes and 2 ms in bfloat16, on one thread of a shared machine; 4 bits are bitsandbytes', too (90 ms).

All of them are frozen, and gradients flow through them to what learns before and beside them (QLoRA).

Source: LLM.int8() (Dettmers et al., 2022); NF4 of QLoRA (Dettmers et al., 2023).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vlinstruct.errors import InputError, not_installed
from vlinstruct.settings import Quantization

_BLOCK = 64  # numbers that share a scale in 4 bits
_EACH_PRODUCT_LOGGED = "bitsandbytes.autograd._functions"  # warns in every product that it quantizes from float16
_OUTLIER = 6.0  # LLM.int8()'s: inputs beyond it are multiplied in 16 bits


def require_quantization(quantize: Quantization, device: torch.device) -> None:
    """Makes sure that a device can quantize, before a tensor is read.

    Raises:
        InputError: no library quantizes for this kind of device.
        ResourceError: the library is not installed.
    """
    if device.type not in ("cpu", "cuda"):
        why = f"no library quantizes on {device.type}"
        raise InputError.at("cannot use --quantize", quantize, why, "Use --device cpu, or --dtype bfloat16")
    # Imported now, so that a missing library is told before a file is read.
    _library(quantize, device)


def quantized_linear(weight: Tensor, quantize: Quantization, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Makes a quantized linear layer.

    Args:
        weight: (out, in), of any floating dtype, on any device.
        quantize: to how many bits.
        device: where it will compute.
        dtype: what it reads and writes.

    Returns:
        A layer without a bias; `with_bias` gives it one.
    """
    library = _library(quantize, device)
    if quantize == "4bit":
        return _four_bit(library, weight, device, dtype)
    return _eight_bit(library, weight, device) if device.type == "cuda" else _weight_only(library, weight, dtype)


def replace_linears(module: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Puts quantized layers in the places of a module's linear ones; their biases go along.

    Args:
        module: is changed in place.
        layers: by the linear layers' names.
    """
    for name, layer in layers.items():
        bias = module.get_submodule(name).bias
        if bias is not None:
            layer.bias = bias
        module.set_submodule(name, layer)


def prepare_for_training(model: nn.Module) -> None:
    """Keeps bitsandbytes from repacking 4-bit layers for AVX-512, as a CPU's first pass without gradients would.

    Its product of repacked weights has no gradients (0.50.2): a training that began with a validation would learn
    nothing of what lies before the first such layer, and not say so.
    """
    layers: Iterator[Any] = model.modules()
    for layer in layers:
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def _four_bit(library: Any, weight: Tensor, device: torch.device, dtype: torch.dtype) -> nn.Module:
    rows, columns = weight.shape
    layer = library.nn.Linear4bit(columns, rows, bias=False, compute_dtype=dtype, quant_type="nf4", device="meta")
    packed = library.nn.Params4bit(weight.to(dtype).contiguous(), requires_grad=False, quant_type="nf4")
    layer.weight = packed.to(device)
    let_bitsandbytes_run(layer)
    return cast(nn.Module, layer)


def let_bitsandbytes_run(model: nn.Module) -> None:
    """Keeps a fault of bitsandbytes from 4-bit layers, which it would repack for AVX-512 on a CPU.

    Of a width that is no multiple of a block it fails (0.50.2): "shape is invalid".
    """
    layers: Iterator[Any] = model.modules()
    for layer in layers:
        if hasattr(layer, "support_avx512bf16_for_cpu") and layer.in_features % _BLOCK:
            layer.support_avx512bf16_for_cpu = False


def _eight_bit(library: Any, weight: Tensor, device: torch.device) -> nn.Module:
    rows, columns = weight.shape
    logging.getLogger(_EACH_PRODUCT_LOGGED).setLevel(logging.ERROR)
    layer: nn.Module = library.nn.Linear8bitLt(
        columns, rows, bias=False, has_fp16_weights=False, threshold=_OUTLIER, device="meta"
    )
    packed = library.nn.Int8Params(weight.to(torch.float16).contiguous(), requires_grad=False, has_fp16_weights=False)
    layer.weight = packed.to(device)
    return layer


def _weight_only(library: Any, weight: Tensor, dtype: torch.dtype) -> nn.Module:
    rows, columns = weight.shape
    # Inputs keep their precision: only the weight is in 8 bits, so no outlier has to be told apart.
    layer = _WeightOnlyLinear(columns, rows, bias=False, device="meta")
    layer.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    library.quantize_(layer, library.Int8WeightOnlyConfig())
    return layer


class _WeightOnlyLinear(nn.Linear):
    """A linear layer whose weight is torchao's; a backward pass keeps it as it is stored.

    torchao's own (0.18) keeps a copy of every weight at full size until then.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and input.requires_grad):
            return super().forward(input)
        return cast(Tensor, _FrozenProduct.apply(input, self.weight, self.bias))  # type: ignore[no-untyped-call]


class _FrozenProduct(torch.autograd.Function):
    """A product with a weight that is made whole only while it is multiplied."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return F.linear(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        return slope @ ctx.weight.dequantize(slope.dtype), None, None


def _library(quantize: Quantization, device: torch.device) -> Any:
    name = "torchao" if quantize == "8bit" and device.type == "cpu" else "bitsandbytes"
    try:
        with hushed():
            if name == "torchao":
                import torchao.quantization

                return torchao.quantization
            import bitsandbytes

            return bitsandbytes
    except ImportError:
        raise not_installed(f"--quantize {quantize}", name, "quantize") from None


@contextmanager
def hushed() -> Iterator[None]:
    """Keeps back what these libraries log when they are imported, of accelerators that are not here."""
    level_before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level_before)
