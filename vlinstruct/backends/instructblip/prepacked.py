"""Prepacked weights: on a processor, products of few positions read a copy of the weight in oneDNN's own order.

Decoding, verifying a draft, scoring and the Q-Former feed 1 to 192 positions. MKL multiplies so few at a fraction of
its speed: a pass of 5 and of 17 tokens through 8 layers of width 512 takes it 23 and 38 ms, with prepacked weights 16
and 24; with more than 192 positions nothing is gained (two cores of an EPYC 7003, torch 2.13).

A copy takes as long as some ten of these products, and as much memory as the weight. So it is made of a layer that is
used more often, and in a model that leaves room for it. Results differ by the order of float32's sums.
"""

from __future__ import annotations

import platform
import weakref

import torch
from torch import Tensor, nn

from vlinstruct.weights.memory import available_bytes

MOST_POSITIONS = 192  # of all rows
LEAST_WIDTH = 256  # of what a layer reads and of what it makes
LEAST_NUMBERS = 2**18  # in a weight: of a smaller one, oneDNN's 30 us for a call are more than it saves
_NUM_AS_IT_IS = 8  # products before a copy is made: a single plain answer needs none
_ROOM = 4  # the weights of the whole model must fit so often into the memory that is free


class Prepacked:
    """The copy of one layer's weight, made when it is worth it; of a weight that changed, made anew.

    What is written through `weight.data` changes a weight unseen, of torch's own checks as of this one.
    """

    def __init__(self) -> None:
        self._copy: Tensor | None = None
        self._num_uses = 0
        self._of: tuple[weakref.ref[Tensor], int, int] | None = None

    def __reduce__(self) -> tuple[type[Prepacked], tuple[()]]:
        return Prepacked, ()  # what is made of a layer is no part of it: one that is copied or sent makes its own

    def product(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        """Returns what `F.linear` does, by the copy; None where the weight itself is to be read.

        Args:
            hidden: what is multiplied, (..., K).
            weight: the layer's, (N, K).
            bias: the layer's, (N,).
        """
        num_positions = hidden.numel() // weight.shape[1]
        if num_positions > MOST_POSITIONS or not _can_be_packed(weight):
            return None
        state = (weight._version, weight.data_ptr())
        if self._of is None or self._of[1:] != state or self._of[0]() is not weight:
            self._of, self._copy, self._num_uses = (weakref.ref(weight), *state), None, 0
        if self._copy is None:
            self._num_uses += num_positions > 1  # one position alone gains little
            if self._num_uses <= _NUM_AS_IT_IS:
                return None
            self._copy = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), MOST_POSITIONS)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(hidden, self._copy, bias, "none", [], "")
        return product


def prepacked(module: nn.Module) -> Prepacked | None:
    """Returns what keeps a layer's copy, if it may have one and nothing is differentiated."""
    keeper = module.__dict__.get("prepacked")
    return keeper if keeper is not None and torch.is_inference_mode_enabled() else None


def allow_prepacking(network: nn.Module) -> None:
    """Lets the large linear layers of a model copy their weights, where these are faster and there is room for all."""
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not has_onednn or platform.machine().lower() not in ("x86_64", "amd64"):
        return  # the weakness is that of MKL, which is x86's
    free = available_bytes()
    if free is None or free < _ROOM * sum(parameter.nbytes for parameter in network.parameters()):
        return
    for module in network.modules():
        if not isinstance(module, nn.Linear) or not _can_be_packed(module.weight):
            continue
        if min(module.weight.shape) >= LEAST_WIDTH and module.weight.numel() >= LEAST_NUMBERS:
            module.__dict__["prepacked"] = Prepacked()


def is_prepacked(network: nn.Module) -> bool:
    """Says whether layers of a model may copy their weights."""
    return any("prepacked" in module.__dict__ for module in network.modules())


def _can_be_packed(weight: Tensor) -> bool:
    # An inference tensor does not tell whether it was changed; a type of its own has a product of its own.
    is_plain = type(weight) is nn.Parameter and not weight.is_inference() and not weight.requires_grad
    return is_plain and weight.dtype == torch.float32 and weight.device.type == "cpu"
