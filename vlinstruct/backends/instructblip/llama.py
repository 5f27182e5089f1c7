"""Llama: the decoder-only language model (Vicuna-7B and -13B). Parameter names are transformers'.

The context is the beginning of the one sequence. Rows of different length are padded on the left, so that all of them
go on at the same place; positions count from a row's first real token, hence padding changes nothing.

Legend: B rows, C context positions, S fed tokens, K positions so far, H heads, W a head's width, L width, V vocabulary.
Source: Llama (Touvron et al., 2023); rotary positions (Su et al., 2021).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from vlinstruct.backends.instructblip.attention import KeyValues, PassingKeyValues, activation, attend, split_heads
from vlinstruct.backends.instructblip.configuration import LlamaConfig
from vlinstruct.backends.instructblip.language_model import Block, DecoderState, LanguageModel, RMSNorm, checkpointed


class Rotation:
    """The rotary embedding of one call's positions.

    Args:
        positions: (B, S), counted from each row's first real token.
        config: gives the head's width and the base of the frequencies.
        dtype: of the states that will be rotated.
    """

    def __init__(self, positions: Tensor, config: LlamaConfig, dtype: torch.dtype) -> None:
        exponents = torch.arange(0, config.head_size, 2, device=positions.device).float() / config.head_size
        angles = positions[:, None, :, None].float() / config.rope_theta**exponents  # (B, 1, S, W/2)
        # The halves of a head are rotated against each other, not neighbours as in the paper: that is how transformers
        # permutes Llama's weights.
        angles = torch.cat([angles, angles], dim=-1)
        self.cos, self.sin = angles.cos().to(dtype), angles.sin().to(dtype)

    def rotate(self, states: Tensor) -> Tensor:
        """(B, H, S, W) -> the same, rotated."""
        first, second = states.chunk(2, dim=-1)
        return states * self.cos + torch.cat([-second, first], dim=-1) * self.sin


class LlamaAttention(nn.Module):
    """Causal self-attention with rotary positions; keys and values may have fewer heads than queries."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        bias = config.attention_bias
        self.head_size = config.head_size
        self.q_proj = nn.Linear(config.hidden_size, config.num_attention_heads * config.head_size, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, config.key_value_heads * config.head_size, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, config.key_value_heads * config.head_size, bias=bias)
        self.o_proj = nn.Linear(config.num_attention_heads * config.head_size, config.hidden_size, bias=bias)

    def forward(
        self, hidden: Tensor, rotation: Rotation, mask: Tensor, cache: KeyValues, starts: Sequence[int]
    ) -> Tensor:
        query = rotation.rotate(split_heads(self.q_proj(hidden), self.head_size))
        key = rotation.rotate(split_heads(self.k_proj(hidden), self.head_size))
        # Kept as rotated: the position of what was read never changes.
        keys, values = cache.append(key, split_heads(self.v_proj(hidden), self.head_size), starts)
        return self.o_proj(attend(query, keys, values, mask=mask))


class LlamaMlp(nn.Module):
    """The gated feed-forward part."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.activation = activation(config.hidden_act)
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.gate_proj(hidden)) * self.up_proj(hidden))


class LlamaLayer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(config)
        self.mlp = LlamaMlp(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, hidden: Tensor, rotation: Rotation, mask: Tensor, cache: KeyValues, starts: Sequence[int]
    ) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), rotation, mask, cache, starts)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class LlamaState:
    """What has been read so far.

    Args:
        caches: keys and values per layer.
        num_padded: (B,), how many positions at a row's beginning are padding.
        is_checkpointed: whether the layers that read on are checkpointed; `caches` then keep nothing.
    """

    def __init__(self, caches: Sequence[KeyValues], num_padded: Tensor, *, is_checkpointed: bool = False) -> None:
        self.caches = caches
        self.num_padded = num_padded
        self.is_checkpointed = is_checkpointed
        self.lengths = [0] * len(num_padded)

    def drop(self, counts: Sequence[int]) -> None:
        # Lengths alone: what is behind them is hidden by the mask, and overwritten by what comes next.
        self.lengths = [length - count for length, count in zip(self.lengths, counts, strict=True)]

    def select(self, rows: Tensor) -> None:
        for cache in self.caches:
            cache.select(rows)
        self.num_padded = self.num_padded.index_select(0, rows)
        self.lengths = [self.lengths[row] for row in rows.tolist()]

    def next_positions(self, num_new: int) -> Tensor:
        """(B, S): where the next tokens stand, padding counted."""
        starts = torch.tensor(self.lengths, device=self.num_padded.device)
        return starts[:, None] + torch.arange(num_new, device=starts.device)


def causal_mask(num_padded: Tensor, positions: Tensor, num_keys: int) -> Tensor:
    """Returns (B, 1, S, K), True where a key may be seen from each position.

    A padded position sees itself: a row of nothing but False would make its softmax NaN.

    Args:
        num_padded: (B,), padded positions at each row's beginning.
        positions: (B, S), padding counted.
        num_keys: K, one more than the last position.
    """
    keys = torch.arange(num_keys, device=positions.device)
    queries = positions[:, None, :, None]
    return ((keys <= queries) & (keys >= num_padded[:, None, None, None])) | (keys == queries)


class LlamaLayers(nn.Module):
    """Everything but the head (`language_model.model` in a checkpoint)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LlamaLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, inputs_embeds: Tensor, state: LlamaState) -> Tensor:
        """Reads what follows `state`, and moves it on: (B, S, L) -> (B, S, L)."""
        num_new = inputs_embeds.shape[1]
        positions = state.next_positions(num_new)
        # A padded position would be below 0; it is seen by nobody but itself, so any position will do.
        rotation = Rotation((positions - state.num_padded[:, None]).clamp(min=0), self.config, inputs_embeds.dtype)
        mask = causal_mask(state.num_padded, positions, max(state.lengths) + num_new)
        hidden = inputs_embeds
        layers: Iterable[Block] = checkpointed(self.layers) if state.is_checkpointed else self.layers
        for layer, cache in zip(layers, state.caches, strict=True):
            hidden = layer(hidden, rotation, mask, cache, state.lengths)
        state.lengths = [length + num_new for length in state.lengths]
        return self.norm(hidden)


class Llama(LanguageModel):
    """The language model (`language_model` in a checkpoint)."""

    _no_split_modules: ClassVar[list[str]] = ["LlamaLayer"]  # FSDP's units

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = LlamaLayers(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def embed_tokens(self, input_ids: Tensor) -> Tensor:
        return self.model.embed_tokens(input_ids)

    def begin(
        self, inputs_embeds: Tensor, attention_mask: Tensor, *, is_checkpointed: bool = False
    ) -> tuple[Tensor, LlamaState]:
        """Reads the context: the last layer's output, (B, C, L), and the state."""
        num_padded = (attention_mask == 0).sum(dim=1)
        cache = PassingKeyValues if is_checkpointed else KeyValues
        state = LlamaState([cache() for _ in self.model.layers], num_padded, is_checkpointed=is_checkpointed)
        return self.model(inputs_embeds, state), state

    def prefill(
        self, inputs_embeds: Tensor, attention_mask: Tensor, draft_ids: Tensor | None = None
    ) -> tuple[Tensor, DecoderState]:
        num_drafted = 0 if draft_ids is None else draft_ids.shape[1]
        if draft_ids is not None:
            inputs_embeds = torch.cat([inputs_embeds, self.embed_tokens(draft_ids)], dim=1)
        hidden, state = self.begin(inputs_embeds, attention_mask)
        # The head is the widest layer: nobody reads what it would say after the context's earlier positions.
        return self.lm_head(hidden[:, -1 - num_drafted :]), state

    def decode(self, input_ids: Tensor, state: DecoderState) -> Tensor:
        assert isinstance(state, LlamaState)
        return self.lm_head(self.model(self.embed_tokens(input_ids), state))

    def target_logits(self, inputs_embeds: Tensor, attention_mask: Tensor, target_ids: Tensor) -> Tensor:
        # One pass over the one sequence. Nothing follows the last target, so it is not read.
        num_targets = target_ids.shape[1]
        embeds = torch.cat([inputs_embeds, self.embed_tokens(target_ids[:, :-1])], dim=1)
        hidden, _ = self.begin(embeds, attention_mask, is_checkpointed=self.is_checkpointing)
        return self.lm_head(hidden[:, -num_targets:])
