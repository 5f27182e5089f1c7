"""How one head of the language model's encoder is taught where to look: dense help, never used at inference.

Llama has no encoder; a head of its lower layers takes its part (`guides.py`), as far as it need not look forwards
(`reading.py`). Where the answer is one of two and depends on two things that stand far apart, half of the answers are
right before either is read, and an hour of training on the answers alone taught neither.

To compare two scores, the first digit of each looks at the other's, so that it can tell which is lower; a layer later
every word of an instruction looks at its own score, and knows whether it stands in the better one.

To judge what is seen by the words of a question: the query of the verdict knows how two things stand, and looks at the
word of their relation; where nothing can look forwards, the word looks at the query. The queries of two things look at
each other, to tell whether their colours agree. Every letter of a quotation looks at the query that has read the same
letter in the same place, at itself where none has; then the verdict's query looks at the letters that had none.

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

from pretrain_mini.guidance import on_device, recording
from pretrain_mini.labels import FOCUS_QUERIES, IGNORED, VERDICT_QUERY, Ids
from vlinstruct.backends.instructblip.t5 import T5, T5Attention

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
    for call, call_looks in enumerate(looks):
        layers = recorded[len(GUIDED_LAYERS) * call :][: len(GUIDED_LAYERS)]
        target = call_looks.dense(layers[0].device)
        total = (target * torch.stack([*layers], dim=1).clamp(min=_LEAST_LOG_PROBABILITY)).sum()
        losses.append(-total / target.sum().clamp(min=1))
    return torch.stack(losses).mean()


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


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a verdict rests on.

    Args:
        looks: (2, C, C): what each position should attend to, in the first and in the second guided layer.
        agrees: (C,): 1 where a letter or thing agrees with what it is compared with, 0 where it does not, else IGNORED.
    """

    looks: Looks
    agrees: Ids


def no_judgement(length: int) -> Judgement:
    """Returns what wants nothing of `length` positions."""
    looks = np.zeros((len(GUIDED_LAYERS), length, length), np.float32)
    return Judgement(looks=looks, agrees=np.full(length, IGNORED))


def judge_relation(length: int, word: Sequence[int], agree: bool) -> Judgement:
    """Lets the verdict look at the relation's word.

    Args:
        length: C.
        word: its positions; none where it is not known which word says it.
        agree: whether two things stand as it says.
    """
    judgement = no_judgement(length)
    judgement.looks[:, VERDICT_QUERY, word] = 1 / max(1, len(word))
    judgement.agrees[word] = int(agree)
    return judgement


def judge_sameness(length: int, agree: bool) -> Judgement:
    """Lets the queries of two things look at each other, and the verdict at both.

    >>> judge_sameness(12, True).agrees.tolist()[8:10]
    [1, 1]
    """
    judgement = no_judgement(length)
    first, second = FOCUS_QUERIES
    judgement.looks[0, [first, second], [second, first]] = 1
    judgement.looks[1, VERDICT_QUERY, [first, second]] = 1 / 2
    judgement.agrees[[first, second]] = int(agree)
    return judgement


def judge_spelling(length: int, letters: Sequence[int], quoted: str, read: str) -> Judgement:
    """Lets every quoted letter look for its like in what is read, and the verdict at those that find none, or at all.

    Args:
        length: C.
        letters: the quoted letters' positions.
        quoted: the letters.
        read: what the picture says; query i has read character i.
    """
    judgement = no_judgement(length)
    agrees = [place < len(read) and read[place] == letter for place, letter in enumerate(quoted)]
    for place, (position, is_equal) in enumerate(zip(letters, agrees, strict=True)):
        judgement.looks[0, position, place if is_equal else position] = 1
        judgement.agrees[position] = int(is_equal)
    decisive = [place for place, is_equal in zip(letters, agrees, strict=True) if all(agrees) or not is_equal]
    judgement.looks[1, VERDICT_QUERY, decisive] = 1 / len(decisive)
    return judgement
