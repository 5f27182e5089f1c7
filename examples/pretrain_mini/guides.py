"""Language models as the losses see them: how one predicts a target, and what is recorded while it does.

T5's encoder looks and its decoder copies. Llama's middle layers look, those above them copy; its rows are padded on the
left, so contexts are shifted there, and what is recorded is shifted back. To the losses, contexts are laid out as in
`Rows`, padded on the right, whatever the model makes of them.

Legend: R rows, C context positions (queries, then prompt), S target tokens, H guided heads, L width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, log_softmax

from pretrain_mini.copying import GUIDED_HEADS, LEAST_LOG_PROBABILITY, recorded_cross_attention
from pretrain_mini.encoder_attention import GUIDED_HEAD, GUIDED_LAYERS, recorded_self_attention
from pretrain_mini.guidance import recording
from vlinstruct.backends.instructblip.attention import split_heads
from vlinstruct.backends.instructblip.llama import Llama, LlamaAttention
from vlinstruct.backends.instructblip.t5 import T5

# Llama's, right above those that look.
COPYING_LAYERS = (GUIDED_LAYERS[-1] + 1, GUIDED_LAYERS[-1] + 2)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a language model did, call by call.

    Args:
        copying: log-probabilities (R, H, S, C) of what is attended to when each target token is predicted; the guided
            layers of a call, then those of the next.
        looking: log-probabilities (R, C, C) of the guided head's attention within the context; likewise.
        encoded: (R, C, L), what is known of the context above the layers that look; one a call.
    """

    copying: list[Tensor] = field(default_factory=list)
    looking: list[Tensor] = field(default_factory=list)
    encoded: list[Tensor] = field(default_factory=list)


class LanguageGuide(Protocol):
    """One kind of language model, as the losses see it."""

    def target_logits(self, inputs_embeds: Tensor, attention_mask: Tensor, target_ids: Tensor) -> Tensor:
        """Returns (R, S, V).

        Args:
            inputs_embeds: (R, C, L).
            attention_mask: (R, C), nonzero where a position is no padding.
            target_ids: (R, S).
        """
        ...

    def recording(self) -> AbstractContextManager[Recorded]:
        """Records what `target_logits` does until the block ends."""
        ...


class T5Guide:
    """`LanguageGuide` of a T5."""

    def __init__(self, language_model: T5) -> None:
        self.language_model = language_model

    def target_logits(self, inputs_embeds: Tensor, attention_mask: Tensor, target_ids: Tensor) -> Tensor:
        return self.language_model.target_logits(inputs_embeds, attention_mask, target_ids)

    @contextmanager
    def recording(self) -> Iterator[Recorded]:
        encoded: list[Tensor] = []
        with (
            recording([self.language_model.encoder], lambda module, inputs, output: encoded.append(output)),
            recorded_cross_attention(self.language_model) as copying,
            recorded_self_attention(self.language_model) as looking,
        ):
            yield Recorded(copying=copying, looking=looking, encoded=encoded)


@dataclass(frozen=True, kw_only=True)
class _Shift:
    """Where the positions of right-padded rows go when they are padded on the left.

    Args:
        source: (R, C), for each new position the old one; of padding, anything.
        target: (R, C), for each old position the new one; of padding, anything.
        mask: (R, C), True where a new position is no padding.
    """

    source: Tensor
    target: Tensor
    mask: Tensor


def _shift(attention_mask: Tensor) -> _Shift:
    num_positions = attention_mask.shape[1]
    num_padded = (attention_mask == 0).sum(dim=1, keepdim=True)
    positions = torch.arange(num_positions, device=attention_mask.device)
    return _Shift(
        source=(positions - num_padded).clamp(min=0),
        target=(positions + num_padded).clamp(max=num_positions - 1),
        mask=positions >= num_padded,
    )


class LlamaGuide:
    """`LanguageGuide` of a Llama."""

    def __init__(self, language_model: Llama) -> None:
        self.language_model = language_model
        self._places = torch.empty(0)

    def target_logits(self, inputs_embeds: Tensor, attention_mask: Tensor, target_ids: Tensor) -> Tensor:
        shift = _shift(attention_mask)
        self._places = shift.target
        shifted = torch.take_along_dim(inputs_embeds, shift.source[..., None], dim=1)
        return self.language_model.target_logits(shifted, shift.mask, target_ids)

    @contextmanager
    def recording(self) -> Iterator[Recorded]:
        recorded = Recorded()
        layers = self.language_model.model.layers

        def copy(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            recorded.copying.append(_copying(module, inputs, self._places))

        def look(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            recorded.looking.append(_looking(module, inputs, self._places))

        def encode(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            recorded.encoded.append(torch.take_along_dim(output, self._places[..., None], dim=1))

        with (
            recording([layers[i].get_submodule("self_attn") for i in COPYING_LAYERS], copy),
            recording([layers[i].get_submodule("self_attn") for i in GUIDED_LAYERS], look),
            recording([layers[GUIDED_LAYERS[-1] + 1].get_submodule("input_layernorm")], encode),
        ):
            yield recorded


def _copying(module: nn.Module, inputs: tuple[Any, ...], places: Tensor) -> Tensor:
    """Returns (R, H, S, C): what the positions that predict the target tokens attend to."""
    attention = _log_attention(module, inputs, slice(0, GUIDED_HEADS))
    num_context = places.shape[1]
    predicting = attention[:, :, num_context - 1 :, :num_context].clamp(min=LEAST_LOG_PROBABILITY)
    return torch.take_along_dim(predicting, places[:, None, None], dim=-1)


def _looking(module: nn.Module, inputs: tuple[Any, ...], places: Tensor) -> Tensor:
    """Returns (R, C, C): what the context's positions attend to."""
    attention = _log_attention(module, inputs, slice(GUIDED_HEAD, GUIDED_HEAD + 1))[:, 0]
    num_context = places.shape[1]
    looks = torch.take_along_dim(attention[:, :num_context, :num_context], places[:, :, None], dim=1)
    return torch.take_along_dim(looks, places[:, None], dim=2)


def _log_attention(module: nn.Module, inputs: tuple[Any, ...], heads: slice) -> Tensor:
    """Computes some heads' attention a second time, (R, heads, K, K): the model's own code need not know of it."""
    assert isinstance(module, LlamaAttention)
    hidden, rotation, mask, cache, _ = inputs
    rows = slice(heads.start * module.head_size, heads.stop * module.head_size)
    query = linear(hidden, module.q_proj.weight[rows], module.q_proj.bias[rows])
    query = rotation.rotate(split_heads(query, module.head_size))
    logits = (query @ cache.keys[:, heads].transpose(-1, -2)).float() * module.head_size**-0.5
    return log_softmax(logits.masked_fill(~mask, -torch.inf), dim=-1)
