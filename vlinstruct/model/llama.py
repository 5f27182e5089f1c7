"""Llama: the decoder-only language model (Vicuna-7B and -13B). Parameter names are transformers'.

The context is the beginning of the one sequence. Rows of different length are padded on the left, so that all of them
go on at the same place; positions count from a row's first real token, hence padding changes nothing.

Legend: B rows, C context positions, S fed tokens, K positions so far, H heads, W a head's width, L width, V vocabulary.
Source: Llama (Touvron et al., 2023); rotary positions (Su et al., 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlinstruct.model.attention import activation, attend, split_heads
from vlinstruct.model.cache import KeyValues
from vlinstruct.model.configuration import LlamaConfig
from vlinstruct.model.language_model import DecoderState, LanguageModel
from vlinstruct.model.rms_norm import RMSNorm


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

    def forward(self, hidden: Tensor, rotation: Rotation, mask: Tensor, cache: KeyValues) -> Tensor:
        query = rotation.rotate(split_heads(self.q_proj(hidden), self.head_size))
        key = rotation.rotate(split_heads(self.k_proj(hidden), self.head_size))
        keys, values = cache.append(key, split_heads(self.v_proj(hidden), self.head_size))
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

    def forward(self, hidden: Tensor, rotation: Rotation, mask: Tensor, cache: KeyValues) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), rotation, mask, cache)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class LlamaState:
    """What has been read so far.

    Args:
        caches: keys and values per layer.
        attention_mask: (B, K), True where a position is no padding.
    """

    def __init__(self, caches: list[KeyValues], attention_mask: Tensor) -> None:
        self.caches = caches
        self.attention_mask = attention_mask

    def select(self, rows: Tensor) -> None:
        for cache in self.caches:
            cache.select(rows)
        self.attention_mask = self.attention_mask.index_select(0, rows)

    def extend(self, num_new: int) -> None:
        """Makes room for `num_new` real tokens in every row."""
        new = self.attention_mask.new_ones(len(self.attention_mask), num_new)
        self.attention_mask = torch.cat([self.attention_mask, new], dim=1)


def causal_mask(attention_mask: Tensor, num_new: int) -> Tensor:
    """Returns (B, 1, S, K), True where a key may be seen by each of the last `num_new` positions.

    A padded position sees itself: a row of nothing but False would make its softmax NaN.
    """
    num_keys = attention_mask.shape[1]
    keys = torch.arange(num_keys, device=attention_mask.device)
    queries = keys[num_keys - num_new :, None]
    return ((keys <= queries) & attention_mask[:, None, None, :]) | (keys == queries)


class LlamaLayers(nn.Module):
    """Everything but the head (`language_model.model` in a checkpoint)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LlamaLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, inputs_embeds: Tensor, state: LlamaState) -> Tensor:
        """Reads the last positions of `state`: (B, S, L) -> (B, S, L)."""
        num_new = inputs_embeds.shape[1]
        positions = (state.attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -num_new:]
        rotation = Rotation(positions, self.config, inputs_embeds.dtype)
        mask = causal_mask(state.attention_mask, num_new)
        hidden = inputs_embeds
        for layer, cache in zip(self.layers, state.caches, strict=True):
            hidden = layer(hidden, rotation, mask, cache)
        return self.norm(hidden)


class Llama(LanguageModel):
    """The language model (`language_model` in a checkpoint)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.model = LlamaLayers(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def embed_tokens(self, input_ids: Tensor) -> Tensor:
        return self.model.embed_tokens(input_ids)

    def begin(self, inputs_embeds: Tensor, attention_mask: Tensor) -> tuple[Tensor, LlamaState]:
        """Reads the context: the last layer's output, (B, C, L), and the state."""
        state = LlamaState([KeyValues() for _ in self.model.layers], attention_mask.bool())
        return self.model(inputs_embeds, state), state

    def prefill(self, inputs_embeds: Tensor, attention_mask: Tensor) -> tuple[Tensor, DecoderState]:
        hidden, state = self.begin(inputs_embeds, attention_mask)
        return self.lm_head(hidden[:, -1]), state

    def decode(self, input_ids: Tensor, state: DecoderState) -> Tensor:
        assert isinstance(state, LlamaState)
        state.extend(input_ids.shape[1])
        return self.lm_head(self.model(self.embed_tokens(input_ids), state))

    def target_logits(self, inputs_embeds: Tensor, attention_mask: Tensor, target_ids: Tensor) -> Tensor:
        num_targets = target_ids.shape[1]
        embeds = torch.cat([inputs_embeds, self.embed_tokens(target_ids[:, :-1])], dim=1)
        mask = torch.cat([attention_mask, attention_mask.new_ones(len(target_ids), num_targets - 1)], dim=1)
        hidden, _ = self.begin(embeds, mask)
        return self.lm_head(hidden[:, -num_targets:])
