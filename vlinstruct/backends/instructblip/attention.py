"""Multi-head attention as every part of the model uses it.

Legend: B rows, H heads, S query positions, K key positions, W width of a head.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from vlinstruct.errors import CheckpointError

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda hidden: F.gelu(hidden, approximate="tanh"),
    "gelu_pytorch_tanh": lambda hidden: F.gelu(hidden, approximate="tanh"),
    "quick_gelu": lambda hidden: hidden * torch.sigmoid(1.702 * hidden),
    "relu": F.relu,
    "silu": F.silu,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Returns the activation that transformers calls `name`.

    Raises:
        CheckpointError: we do not implement it.
    """
    if name not in _ACTIVATIONS:
        raise CheckpointError(f"unsupported activation {name!r} in config.json: known are {', '.join(_ACTIVATIONS)}.")
    return _ACTIVATIONS[name]


def split_heads(hidden: Tensor, head_size: int) -> Tensor:
    """(B, S, H*W) -> (B, H, S, W)."""
    return hidden.view(*hidden.shape[:-1], -1, head_size).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """softmax(query key^T * scale) value, heads joined again.

    Args:
        query: (B, H, S, W).
        key: (B, H, K, W).
        value: (B, H, K, W).
        mask: broadcasts to (B, H, S, K); boolean, True where a key may be seen, or floating, added to the logits.
        scale: W^-0.5 unless given (T5 takes 1).

    Returns:
        (B, S, H*W).
    """
    if mask is not None and mask.is_floating_point():
        mask = mask.to(query.dtype)
    if query.device.type == "cpu" and query.requires_grad:
        attended = _attend_plainly(query, key, value, mask, scale or query.shape[-1] ** -0.5)
    else:
        grouped = query.shape[1] != key.shape[1]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped)
    return attended.transpose(1, 2).flatten(2)


def prefer_kernels_for_all_shapes() -> None:
    """Takes cuDNN's attention out of torch's choice, for this process.

    On Hopper and later it is torch's first choice where there is a mask, and it makes a plan for every new shape: half
    a second, in which other kernels answer. Every written token is a new shape, and so is every batch of a training.

    Source: pytorch/pytorch#155958 (recompiling for different sequence lengths), modelscope/FunASR#3704 (figures).
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def _attend_plainly(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The same in four steps, for training on a CPU.

    There the fused kernel's backward pass costs twice this one's time in bfloat16 (26 against 14 ms for 12 pictures, 5
    heads, 145 positions, one core of an EPYC 9004, torch 2.13).
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    logits = (query * scale) @ key.transpose(-1, -2)
    if mask is not None:
        logits = logits + mask if mask.is_floating_point() else logits.masked_fill(~mask, -torch.inf)
    return logits.softmax(dim=-1) @ value
