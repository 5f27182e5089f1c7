"""How one head of the language model's encoder is taught where to look: dense help, never used at inference.

Llama has no encoder; a head of its lower layers takes its part (`llama_guide.py`), as far as it need not look forwards
(`reading.py`).

`comparing.py` says where it should look to compare two scores, `judging.py` to judge what the Q-Former has seen by the
words of the question. Where the answer is one of two and depends on two things that stand far apart, half of the
answers are right before either is read, and an hour of training on the answers alone taught neither.

Legend: R rows, C context positions (queries, then prompt).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear, log_softmax

from vlinstruct.backends.instructblip.t5 import T5, T5Attention
from vlinstruct.mini.recording import recording
from vlinstruct.mini.transfer import on_device

Looks = NDArray[np.float32]

GUIDED_LAYERS = (1, 2)
GUIDED_HEAD = 4
# For masked positions, whose log-probability is minus infinity and whose target is zero.
_LEAST_LOG_PROBABILITY = -30.0


@dataclass(frozen=True, kw_only=True)
class SparseLooks:
    """The looks of rows that go through the model together; all but a thousandth are zero.

    Args:
        shape: (R, 2, C, C).
        places: (N,), where they are not, counted through all dimensions.
        shares: (N,), what they are there.
    """

    shape: tuple[int, ...]
    places: NDArray[np.int64]
    shares: NDArray[np.float32]

    def dense(self, device: torch.device) -> Tensor:
        """Returns (R, 2, C, C)."""
        places, shares = on_device(self.places, device), on_device(self.shares, device)
        return torch.zeros(math.prod(self.shape), device=device).scatter_(0, places, shares).view(self.shape)


def sparse(looks: Looks) -> SparseLooks:
    """Returns what is not zero of (R, 2, C, C).

    >>> sparse(np.array([[0.0, 0.5], [0.0, 1.0]], np.float32)).places.tolist()
    [1, 3]
    """
    places = np.flatnonzero(looks)
    return SparseLooks(shape=looks.shape, places=places, shares=looks.ravel()[places])


@contextmanager
def recorded_self_attention(language_model: T5) -> Iterator[list[Tensor]]:
    """Collects the guided head's attention as log-probabilities (R, C, C), the guided layers of each call in turn."""
    recorded: list[Tensor] = []

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        assert isinstance(module, T5Attention)
        hidden, keys, _, bias = inputs
        rows = slice(GUIDED_HEAD * module.head_size, (GUIDED_HEAD + 1) * module.head_size)
        logits = (linear(hidden, module.q.weight[rows]) @ keys[:, GUIDED_HEAD].transpose(-1, -2)).float()
        recorded.append(log_softmax(logits + bias[:, GUIDED_HEAD], dim=-1))

    blocks = [language_model.encoder.block[layer] for layer in GUIDED_LAYERS]
    with recording((block.get_submodule("layer.0.SelfAttention") for block in blocks), record):
        yield recorded


def encoder_attention_loss(recorded: Sequence[Tensor], looks: Sequence[SparseLooks]) -> Tensor:
    """Returns the cross-entropy, in nats, of the attention to where it should look: the mean of the calls' means.

    Args:
        recorded: (R, C, C), the guided layers of a call, then those of the next.
        looks: of each call, zeros where the head may look anywhere; calls after them are not guided.
    """
    losses = []
    for call, wanted in enumerate(looks):
        layers = recorded[len(GUIDED_LAYERS) * call :][: len(GUIDED_LAYERS)]
        here = wanted.dense(layers[0].device)
        total = (here * torch.stack([*layers], dim=1).clamp(min=_LEAST_LOG_PROBABILITY)).sum()
        losses.append(-total / here.sum().clamp(min=1))
    return torch.stack(losses).mean()
