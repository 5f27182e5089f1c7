"""Where the Q-Former's queries look: dense help for its cross-attention, never used at inference.

`labels.py` says where they should. An earlier mini that had to find this out from answers alone learned colours, but
neither positions nor counts, from 193,000 pictures.

Legend: R rows, Q queries, P positions (class token + G*G patches), H heads, W width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear, log_softmax

from pretrain_mini.labels import Targets
from vlinstruct.backends.instructblip.qformer import QFormer, QueryKeyValue

Record = Callable[[nn.Module, tuple[Any, ...], Any], None]

_GUIDED_HEADS = 3
_FIRST_GUIDED_LAYER = 1


@contextmanager
def recording(modules: Iterable[nn.Module], record: Record) -> Iterator[None]:
    """Calls `record` with module, inputs and output whenever one of the modules has run, until the block ends."""
    handles = [module.register_forward_hook(record) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def on_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Returns an array as a tensor; on its way to an accelerator nothing waits for it, nor it for anything."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@contextmanager
def recorded_attention(qformer: QFormer) -> Iterator[list[tuple[Tensor, ...]]]:
    """Collects the guided cross-attentions' log-probabilities, one (R, H, Q, P) tensor a layer, one tuple a call.

    They are computed a second time from the layers' inputs, for the guided heads only: the model's own code need not
    know of them.
    """
    calls: list[tuple[Tensor, ...]] = []
    pending: list[Tensor] = []
    attentions = [layer.crossattention.attention for layer in list(qformer.encoder.layer)[_FIRST_GUIDED_LAYER:]]  # type: ignore[union-attr]

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        assert isinstance(module, QueryKeyValue)
        pending.append(_log_probabilities(module, inputs[0], inputs[1]))
        if len(pending) == len(attentions):
            calls.append(tuple(pending))
            pending.clear()

    with recording(attentions, record):  # type: ignore[arg-type]
        yield calls


def _log_probabilities(attention: QueryKeyValue, hidden: Tensor, context: Tensor) -> Tensor:
    width = attention.head_size * _GUIDED_HEADS
    query, key = (
        linear(states, layer.weight[:width], layer.bias[:width])
        .view(*states.shape[:-1], _GUIDED_HEADS, -1)
        .transpose(1, 2)
        for states, layer in ((hidden, attention.query), (context, attention.key))
    )
    return log_softmax((query @ key.transpose(-1, -2)).float() * attention.head_size**-0.5, dim=-1)


def guidance_loss(calls: Sequence[tuple[Tensor, ...]], targets: Sequence[Targets]) -> Tensor:
    """Returns the mean cross-entropy, in nats, of the attention to its targets, over guided queries, heads and layers.

    Args:
        calls: what `recorded_attention` collected.
        targets: (R, Q, P) of the same calls.
    """
    losses = []
    guided = sum(float(places.sum()) * len(layers) for layers, places in zip(calls, targets, strict=True))
    for layers, places in zip(calls, targets, strict=True):
        weights = on_device(places, layers[0].device)[:, None]
        losses += [-(log_probabilities * weights).sum() / _GUIDED_HEADS for log_probabilities in layers]
    return torch.stack(losses).sum() / max(1.0, guided)
