"""Where the Q-Former's queries should look: dense help for its cross-attention, never used at inference.

Query i reads character i of the printed text; the next queries find the things the question names, in its order; the
last one looks at all of them at once, and at the class token, so that their number and their absence can be told from
how its attention is shared out. An earlier mini that had to find this out from answers alone learned colours, but
neither positions nor counts, from 193,000 pictures.

Legend: R rows, Q queries, P positions (class token + G*G patches), H heads, W width of a head.
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

from vlinstruct.backends.instructblip.qformer import QFormer, QueryKeyValue
from vlinstruct.mini.labels import HALVES, centre_cell
from vlinstruct.mini.questions import Fact
from vlinstruct.mini.recording import recording
from vlinstruct.mini.scene import Scene
from vlinstruct.mini.transfer import on_device
from vlinstruct.mini.words import MAX_LENGTH

FOCUS_QUERIES = (MAX_LENGTH, MAX_LENGTH + 1)
NUM_QUERY_TOKENS = MAX_LENGTH + 4
FAMILY_QUERY = NUM_QUERY_TOKENS - 2
VERDICT_QUERY = NUM_QUERY_TOKENS - 1
READING_FAMILIES = ("reading", "number", "written", "ocr", "meme", "caption", "description")
# Families that are answered by what is not there, too.
_ABSENCE_FAMILIES = ("count", "exist", "answerable")
# The class token's share beside one of each thing: far from equal, so that three things and four are told apart.
_CLASS_SHARE = 3
_GUIDED_HEADS = 3
_FIRST_GUIDED_LAYER = 1

Targets = NDArray[np.float32]


def attention_targets(fact: Fact, scene: Scene, index: NDArray[np.int64]) -> Targets:
    """Returns the wanted distribution of every query's attention, (Q, P); a row of zeros wants nothing.

    Args:
        fact: what is asked.
        scene: about which picture.
        index: (G, 2 G), the picture's labels of characters' indices.
    """
    grid = len(index)
    targets = np.zeros((NUM_QUERY_TOKENS, 1 + grid * grid), np.float32)
    if fact.family in READING_FAMILIES and scene.prints:
        _look_at_characters(targets, index)
    places = (centre_cell(thing, scene.corners, grid) for thing in (*fact.focus, *fact.counted))
    cells = [1 + grid * row + column for row, column in places]
    for query, cell in zip(FOCUS_QUERIES, cells[: len(fact.focus)], strict=False):
        targets[query, cell] = 1
    if cells or fact.family in _ABSENCE_FAMILIES:
        targets[VERDICT_QUERY, 0] = _CLASS_SHARE / (_CLASS_SHARE + len(cells))
        targets[VERDICT_QUERY, cells] = 1 / (_CLASS_SHARE + len(cells))
    return targets


def _look_at_characters(targets: Targets, index: NDArray[np.int64]) -> None:
    grid = len(index)
    halves = index.reshape(grid * grid, HALVES)
    for place in range(MAX_LENGTH):
        patches = (halves == place + 1).any(axis=1)
        targets[place, 1:] = patches / max(1, patches.sum())


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
    guided = sum(float(wanted.sum()) * len(layers) for layers, wanted in zip(calls, targets, strict=True))
    for layers, wanted in zip(calls, targets, strict=True):
        weights = on_device(wanted, layers[0].device)[:, None]
        losses += [-(log_probabilities * weights).sum() / _GUIDED_HEADS for log_probabilities in layers]
    return torch.stack(losses).sum() / max(1.0, guided)
