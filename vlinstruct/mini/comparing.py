"""Where the language model's encoder should look to compare two scores: dense help, never used at inference.

The first digit of each score looks at the other's, so that it can tell which is lower; a layer later every word of an
instruction looks at its own score, and knows whether it stands in the better one. Before this was guided, an hour of
training had not taught it: the scores stand far apart, and where they cannot be read yet, half of the answers are right
all the same.

Legend: R rows, C context positions (queries, then prompt).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear, log_softmax

from vlinstruct.mini.recording import recording
from vlinstruct.model.t5 import T5, T5Attention

Looks = NDArray[np.float32]

GUIDED_LAYERS = (1, 2)
_GUIDED_HEAD = 4


def comparing_looks(length: int, spans: Sequence[slice], digits: Sequence[int]) -> Looks:
    """Returns (2, C, C): what each position should attend to, in the first and in the second guided layer.

    Args:
        length: C.
        spans: of the two instructions, their scores included.
        digits: positions of their scores' first digits.

    >>> looks = comparing_looks(6, [slice(0, 3), slice(3, 6)], [2, 5])
    >>> np.argwhere(looks[0]).tolist(), looks[1].argmax(axis=1).tolist()
    ([[2, 5], [5, 2]], [2, 2, 2, 5, 5, 5])
    """
    looks = np.zeros((len(GUIDED_LAYERS), length, length), np.float32)
    for own, other in ((0, 1), (1, 0)):
        looks[0, digits[own], digits[other]] = 1
        looks[1, spans[own], digits[own]] = 1
    return looks


@contextmanager
def recorded_self_attention(language_model: T5) -> Iterator[list[Tensor]]:
    """Collects the guided head's attention as log-probabilities (R, C, C), the guided layers of each call in turn."""
    recorded: list[Tensor] = []

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        assert isinstance(module, T5Attention)
        hidden, keys, _, bias = inputs
        rows = slice(_GUIDED_HEAD * module.head_size, (_GUIDED_HEAD + 1) * module.head_size)
        logits = (linear(hidden, module.q.weight[rows]) @ keys[:, _GUIDED_HEAD].transpose(-1, -2)).float()
        recorded.append(log_softmax(logits + bias[:, _GUIDED_HEAD], dim=-1))

    blocks = [language_model.encoder.block[layer] for layer in GUIDED_LAYERS]
    with recording((block.get_submodule("layer.0.SelfAttention") for block in blocks), record):
        yield recorded


def comparing_loss(recorded: Sequence[Tensor], looks: Sequence[Looks | None]) -> Tensor:
    """Returns the mean cross-entropy, in nats, of the attention to what compares; 0 where nothing is compared.

    Args:
        recorded: of `recorded_self_attention`.
        looks: (R, 2, C, C) of each call, or None where it compares nothing.
    """
    losses = []
    for call, wanted in enumerate(looks):
        for layer in range(len(GUIDED_LAYERS) if wanted is not None else 0):
            assert wanted is not None
            log_probabilities = recorded[len(GUIDED_LAYERS) * call + layer]
            here = torch.from_numpy(wanted[:, layer]).to(log_probabilities.device)
            total = (here * log_probabilities.clamp(min=-30.0)).sum()
            losses.append(-total / here.sum().clamp(min=1))
    return torch.stack(losses).mean() if losses else recorded[0].new_zeros(())
