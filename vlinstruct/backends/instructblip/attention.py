"""What every network here is made of: parts that are called without detours, multi-head attention, and the keys and
values that it keeps while text is written.

Legend: B rows, H heads, S query positions, K key positions, W width of a head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlinstruct.backends.instructblip.prepacked import Prepacked, prepacked
from vlinstruct.errors import CheckpointError

# Positions that are reserved beyond what is needed: one allocation, and one copy of all before it, in 64 tokens.
_ROOM = 64

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda hidden: F.gelu(hidden, approximate="tanh"),
    "gelu_pytorch_tanh": lambda hidden: F.gelu(hidden, approximate="tanh"),
    "quick_gelu": lambda hidden: hidden * torch.sigmoid(1.702 * hidden),
    "relu": F.relu,
    "silu": F.silu,
}


class Part(nn.Module, ABC):
    """A module whose layers are looked up once for many calls.

    nn.Module's way to a layer and through its call takes Python some 10 us on a slow core, a product of one token 4. Of
    the 2 ms in which mini's decoder read a token, 1.3 were such detours.
    """

    @abstractmethod
    def ready(self) -> Callable[..., Tensor]:
        """Returns `forward`, its layers looked up: good until one of them is replaced, hooked or moved."""

    def forward(self, *inputs: Any) -> Tensor:
        return self.ready()(*inputs)


def ready(module: nn.Module) -> Callable[..., Tensor]:
    """Returns what computes as a module does, for a few calls from now on.

    That is the module itself where it must be called: it has hooks, a forward of its own (accelerate's), or a weight
    with a product of its own (torchao's, which takes what it multiplies by position).
    """
    # From the tables themselves: nn.Module's own way to a parameter takes Python 1 us, and an answer needs 200 layers.
    state = module.__dict__
    if state["_forward_hooks"] or state["_forward_pre_hooks"] or "forward" in state:
        return module
    kind, parameters = type(module), state["_parameters"]
    if kind is nn.Linear and type(parameters["weight"]) is nn.Parameter:
        keeper = prepacked(module)
        return partial(F.linear, **parameters) if keeper is None else partial(_product, keeper, **parameters)
    if kind is nn.LayerNorm:
        return partial(F.layer_norm, normalized_shape=state["normalized_shape"], eps=state["eps"], **parameters)
    return module.ready() if isinstance(module, Part) else module


def _product(keeper: Prepacked, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product = keeper.product(hidden, weight, bias)
    return F.linear(hidden, weight, bias) if product is None else product


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Returns the activation that transformers calls `name`.

    Raises:
        CheckpointError: we do not implement it.
    """
    if name not in _ACTIVATIONS:
        raise CheckpointError(
            f"unsupported activation {name!r} in config.json: supported are {', '.join(_ACTIVATIONS)}."
        )
    return _ACTIVATIONS[name]


def split_heads(hidden: Tensor, head_size: int) -> Tensor:
    """(B, S, H*W) -> (B, H, S, W)."""
    num_rows, num_positions, _ = hidden.shape
    return hidden.view(num_rows, num_positions, -1, head_size).transpose(1, 2)


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
    # A bias is made once per pass in its own dtype; the kernels take the query's only.
    if mask is not None and mask.is_floating_point():
        mask = mask.to(query.dtype)
    if query.device.type == "cpu" and query.requires_grad:
        output = _attend_plainly(query, key, value, mask, scale or query.shape[-1] ** -0.5)
    else:
        grouped = query.shape[1] != key.shape[1]
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped)
    return output.transpose(1, 2).flatten(2)


def prefer_kernels_for_all_shapes() -> None:
    """Takes cuDNN's attention out of torch's choice, for this process.

    On Hopper and later it is torch's first choice where there is a mask, and it makes a plan for every new shape: half
    a second, in which other kernels answer. Every written token is a new shape, and so is every batch of a training.

    Source: pytorch/pytorch#155958 (recompiling for different sequence lengths), modelscope/FunASR#3704 (figures).
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def _attend_plainly(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Computes `attend`'s formula in four steps, for training on a CPU.

    There the fused kernel's backward pass costs twice this one's time in bfloat16 (26 against 14 ms for 12 pictures, 5
    heads, 145 positions, one core of an EPYC 9004, torch 2.13).
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:  # grouped-query attention: so many heads of the query share one of the keys
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    logits = (query * scale) @ key.transpose(-1, -2)
    if mask is not None:
        logits = logits + mask if mask.is_floating_point() else logits.masked_fill(~mask, -torch.inf)
    return logits.softmax(dim=-1) @ value


class KeyValues:
    """The keys and values of one attention, (B, H, K, W) each, in memory that is reserved ahead; grows by `append`.

    Rows may be of different length: what a row has dropped again is overwritten by what it reads next.
    """

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None) -> None:
        self.keys = keys
        self.values = values

    def append(self, keys: Tensor, values: Tensor, starts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Adds positions and returns all keys and values up to the longest row's last one.

        Args:
            keys: (B, H, S, W).
            values: (B, H, S, W).
            starts: per row, how many positions are there already.
        """
        if self.keys is None or self.values is None:
            self.keys, self.values = keys, values
            return keys, values
        length = max(starts) + keys.shape[2]
        if self.keys.shape[2] < length:
            self.keys, self.values = _with_room(self.keys, length), _with_room(self.values, length)
        _write(self.keys, keys, starts)
        _write(self.values, values, starts)
        return self.keys.narrow(2, 0, length), self.values.narrow(2, 0, length)

    def fill(self, other: KeyValues) -> None:
        """Takes over the numbers of keys and values of the same shape; its own memory stays where it is."""
        for own, given in ((self.keys, other.keys), (self.values, other.values)):
            assert own is not None
            assert given is not None
            own.copy_(given)

    def select(self, rows: Tensor) -> None:
        """Keeps the rows at `rows` (N,), in that order."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)


class Reserved:
    """Where the tokens of a pass stand, for all caches of a model in memory that never moves.

    Args:
        starts: (B,), on the device, how many positions every row has read.
        num_keys: K, the positions that every cache has room for.
    """

    def __init__(self, starts: Tensor, num_keys: int) -> None:
        self.starts = starts
        self.num_keys = num_keys
        self.positions = starts[:, None]  # (B, S) of the pass at hand

    def place(self, num_new: int) -> Tensor:
        """Returns where the next tokens stand, (B, S), as the caches take it, too."""
        self.positions = self.starts[:, None] + torch.arange(num_new, device=self.starts.device)
        return self.positions


class ReservedKeyValues(KeyValues):
    """Keys and values in memory that never moves: a pass over them has one shape, whatever was read before.

    What is behind a row's last position is for the mask to hide.

    Args:
        keys: (B, H, K, W), finite.
        values: likewise.
        reserved: where the tokens of a pass stand.
    """

    def __init__(self, keys: Tensor, values: Tensor, reserved: Reserved) -> None:
        super().__init__(keys, values)
        self.reserved = reserved

    def append(self, keys: Tensor, values: Tensor, starts: Sequence[int]) -> tuple[Tensor, Tensor]:
        places = self.reserved.positions[:, None, :, None].expand_as(keys)
        assert self.keys is not None  # from the beginning on
        assert self.values is not None
        return self.keys.scatter_(2, places, keys), self.values.scatter_(2, places, values)


class PassingKeyValues(KeyValues):
    """Keeps nothing, for a sequence that is read in one pass: a checkpointed block may append twice.

    What a block kept would hold its graph, which holds the block's arguments: a circle that is never freed.
    """

    def append(self, keys: Tensor, values: Tensor, starts: Sequence[int]) -> tuple[Tensor, Tensor]:
        return keys, values


def _with_room(memory: Tensor, length: int) -> Tensor:
    """Returns memory for `length` positions and more, whose first ones hold what `memory` holds."""
    # Zeros, not uninitialised: a mask hides a position by weight 0, and 0 * NaN would be NaN.
    larger = memory.new_zeros(*memory.shape[:2], length + _ROOM, memory.shape[3])
    larger[:, :, : memory.shape[2]] = memory
    return larger


def _write(memory: Tensor, states: Tensor, starts: Sequence[int]) -> None:
    # The rule, unless drafts were right in some rows only: a part is cheaper than a scatter.
    if len(starts) == 1 or len(set(starts)) == 1:
        memory.narrow(2, starts[0], states.shape[2]).copy_(states)
        return
    places = torch.tensor(starts, device=states.device)[:, None] + torch.arange(states.shape[2], device=states.device)
    memory.scatter_(2, places[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3]), states)
