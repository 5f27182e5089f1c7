"""Where the decoder should look when it copies: dense help for the language model's cross-attention, or Llama's own.

Most of what mini writes it has read: an instruction's slots, an option, the letters that the Q-Former's queries have
found. A decoder that had to find out from its answers alone where to copy from wrote words of the right kind, but other
ones than it had read, after 1,000 steps.

Legend: R rows, S target tokens, C context positions (queries, then prompt), T prompt tokens, H heads, W head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear, log_softmax

from pretrain_mini.guidance import on_device, recording
from pretrain_mini.labels import Ids
from vlinstruct.backends.instructblip.t5 import T5, T5Attention

Sources = NDArray[np.float32]

GUIDED_HEADS = 2
# A token that stands alone in the prompt and more often than this is no sign of a copy: "the", "is".
_MOST_SOURCES = 2
# For masked positions, whose log-probability is minus infinity and whose target is zero.
LEAST_LOG_PROBABILITY = -30.0


def common_runs(target: Ids, prompt: Ids) -> Ids:
    """Returns (S, T): the length of the common run of tokens that each pair of positions lies in, 0 where they differ.

    >>> common_runs(np.array([5, 6, 9]), np.array([5, 6, 7, 9])).tolist()
    [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]]
    """
    equal = (target[:, None] == prompt[None]).astype(np.int64)
    before, after = equal.copy(), equal.copy()
    for i in range(1, len(target)):
        before[i, 1:] *= 1 + before[i - 1, :-1]
        after[-1 - i, :-1] *= 1 + after[len(target) - i, 1:]
    return before + after - equal


def prompt_sources(target: Ids, prompt: Ids) -> Sources:
    """Returns (S, T): where each target token is copied from, as a distribution; zeros where it is not.

    A token comes from the longest common run; one that stands alone comes from wherever the prompt has it, unless that
    is in many places.
    """
    runs = common_runs(target, prompt)
    longest = runs.max(axis=1, keepdims=True)
    sources = (runs == longest) & (runs > 0)
    count = sources.sum(axis=1, keepdims=True)
    is_copied = (longest > 1) | (count <= _MOST_SOURCES)
    return (sources * is_copied / np.maximum(count, 1)).astype(np.float32)


def run_of(part: Ids, whole: Ids) -> NDArray[np.bool_]:
    """Returns (T,): True where `part` first stands in `whole`, all False where it does not.

    >>> run_of(np.array([5, 6]), np.array([4, 5, 6, 7])).tolist()
    [False, True, True, False]
    """
    inside = np.zeros(len(whole), np.bool_)
    for start in range(len(whole) - len(part) + 1):
        if (whole[start : start + len(part)] == part).all():
            inside[start : start + len(part)] = True
            break
    return inside


def query_sources(target: Ids, spelt: Ids, num_queries: int) -> Sources:
    """Returns (S, Q): query i for character i of a spelt text wherever the target has it.

    Args:
        target: (S,) what is written.
        spelt: the text's tokens: a space, then its characters.
        num_queries: Q.
    """
    sources = np.zeros((len(target), num_queries), np.float32)
    for start in range(len(target) - len(spelt) + 1):
        if (target[start : start + len(spelt)] == spelt).all():
            for place in range(len(spelt) - 1):
                sources[start + 1 + place, place] = 1
    return sources


def name_sources(target: Ids, names: Mapping[int, Sequence[int]], num_queries: int) -> Sources:
    """Returns (S, Q): for every token that names a thing, the queries that have found such a thing.

    Args:
        target: (S,) what is written.
        names: by query, the tokens for its thing's shape and colour.
        num_queries: Q.
    """
    sources = np.zeros((len(target), num_queries), np.float32)
    for query, tokens in names.items():
        sources[np.isin(target, tokens), query] = 1
    return sources / np.maximum(sources.sum(axis=1, keepdims=True), 1)


@contextmanager
def recorded_cross_attention(language_model: T5) -> Iterator[list[Tensor]]:
    """Collects the guided heads' cross-attention as log-probabilities (R, H, S, C), one tensor per decoder layer."""
    recorded: list[Tensor] = []

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        assert isinstance(module, T5Attention)
        hidden, keys, _, bias = inputs
        weight = module.q.weight[: GUIDED_HEADS * module.head_size]
        query = linear(hidden, weight).view(*hidden.shape[:-1], GUIDED_HEADS, -1).transpose(1, 2)
        logits = (query @ keys[:, :GUIDED_HEADS].transpose(-1, -2)).float() + bias
        recorded.append(log_softmax(logits, dim=-1).clamp(min=LEAST_LOG_PROBABILITY))

    attentions = [block.get_submodule("layer.1.EncDecAttention") for block in language_model.decoder.block]
    with recording(attentions, record):
        yield recorded


def copying_loss(recorded: Sequence[Tensor], sources: Sequence[Sources]) -> Tensor:
    """Returns the mean cross-entropy, in nats, of the attention to the sources of what is copied.

    Args:
        recorded: (R, H, S, C), all guided layers of a call, then those of the next.
        sources: (R, S, C) of each call.
    """
    layers = len(recorded) // len(sources)
    copied = sum(float(weights.sum()) for weights in sources) * layers * GUIDED_HEADS
    losses = []
    for i, log_probabilities in enumerate(recorded):
        weights = on_device(sources[i // layers], log_probabilities.device)
        losses.append(-(log_probabilities * weights[:, None]).sum())
    return torch.stack(losses).sum() / max(1.0, copied)
