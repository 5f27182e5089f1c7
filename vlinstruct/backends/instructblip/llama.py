"""Llama: the decoder-only language model (Vicuna-7B and -13B). Parameter names are transformers'.

The context is the beginning of the one sequence. Rows of different length are padded on the left, so that all of them
go on at the same place; positions count from a row's first real token, hence padding changes nothing.

Legend: B rows, C context positions, S fed tokens, K positions so far, H heads, W a head's width, L width, V vocabulary.
Source: Llama (Touvron et al., 2023); rotary positions (Su et al., 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from vlinstruct.backends.instructblip.attention import (
    KeyValues,
    Part,
    PassingKeyValues,
    Reserved,
    ReservedKeyValues,
    activation,
    attend,
    ready,
    split_heads,
)
from vlinstruct.backends.instructblip.configuration import LlamaConfig
from vlinstruct.backends.instructblip.language_model import (
    Block,
    DecoderState,
    Head,
    LanguageModel,
    RMSNorm,
    RowState,
    checkpointed,
)

_ROOM = 64  # positions ahead of which rotations are computed


class Rotation:
    """The rotary embedding of one call's positions.

    Args:
        cos: (B, 1, S, W), of each position's angles; the same in both halves.
        sin: likewise, negative in the first half.
    """

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self.cos, self.sin = cos, sin

    def rotate(self, states: Tensor) -> Tensor:
        """(B, H, S, W) -> the same, rotated."""
        # The halves of a head are rotated against each other, not neighbours as in the paper: that is how transformers
        # permutes Llama's weights.
        return states * self.cos + states.roll(states.shape[-1] // 2, dims=-1) * self.sin


class Rotations:
    """The rotations of all positions, as far as they were asked for.

    Args:
        config: gives the head's width and the base of the frequencies.
        dtype: of the states that will be rotated.
        device: where they are.
    """

    def __init__(self, config: LlamaConfig, dtype: torch.dtype, device: torch.device) -> None:
        exponents = torch.arange(0, config.head_size, 2, device=device).float() / config.head_size
        self.periods = config.rope_theta**exponents  # (W / 2,)
        self.dtype = dtype
        self.cos = self.sin = torch.empty(0, config.head_size, dtype=dtype, device=device)  # (N, W)

    def at(self, positions: Tensor, num_positions: int) -> Rotation:
        """Returns the rotation at positions (B, S), all of them below `num_positions`."""
        if len(self.cos) < num_positions:
            angles = torch.arange(num_positions + _ROOM, device=positions.device)[:, None].float() / self.periods
            cos, sin = angles.cos(), angles.sin()
            self.cos, self.sin = torch.cat([cos, cos], -1).to(self.dtype), torch.cat([-sin, sin], -1).to(self.dtype)
        return Rotation(self.cos[positions][:, None], self.sin[positions][:, None])


class LlamaAttention(Part):
    """Causal self-attention with rotary positions; keys and values may have fewer heads than queries."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        bias = config.attention_bias
        self.head_size = config.head_size
        self.q_proj = nn.Linear(config.hidden_size, config.num_attention_heads * config.head_size, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, config.key_value_heads * config.head_size, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, config.key_value_heads * config.head_size, bias=bias)
        self.o_proj = nn.Linear(config.num_attention_heads * config.head_size, config.hidden_size, bias=bias)

    def ready(self) -> Callable[..., Tensor]:
        parts = (self.q_proj, self.k_proj, self.v_proj, self.o_proj)
        query, key, value, output = map(ready, parts)
        head_size = self.head_size

        def read(hidden: Tensor, rotation: Rotation, mask: Tensor, cache: KeyValues, starts: Sequence[int]) -> Tensor:
            queries = rotation.rotate(split_heads(query(hidden), head_size))
            # Kept as rotated: the position of what was read never changes.
            new_keys = rotation.rotate(split_heads(key(hidden), head_size))
            keys, values = cache.append(new_keys, split_heads(value(hidden), head_size), starts)
            return output(attend(queries, keys, values, mask=mask))

        return read


class LlamaMlp(Part):
    """The gated feed-forward part."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.activation = activation(config.hidden_act)
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def ready(self) -> Callable[..., Tensor]:
        gate, up, down, activate = ready(self.gate_proj), ready(self.up_proj), ready(self.down_proj), self.activation
        return lambda hidden: down(activate(gate(hidden)) * up(hidden))


class LlamaLayer(Part):
    """A pre-norm transformer layer."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(config)
        self.mlp = LlamaMlp(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def ready(self) -> Callable[..., Tensor]:
        parts = (self.input_layernorm, self.self_attn, self.post_attention_layernorm, self.mlp)
        norm, attention, mlp_norm, mlp = map(ready, parts)

        def layer(hidden: Tensor, rotation: Rotation, mask: Tensor, cache: KeyValues, starts: Sequence[int]) -> Tensor:
            hidden = hidden + attention(norm(hidden), rotation, mask, cache, starts)
            return hidden + mlp(mlp_norm(hidden))

        return layer


class LlamaState(RowState):
    """What has been read so far.

    Args:
        caches: keys and values per layer; they keep nothing where the layers are checkpointed.
        num_padded: (B,), how many positions at a row's beginning are padding.
        read: embeddings that follow, (B, S, L), to the last layer's output; the layers looked up once a text.
        is_checkpointed: as `RowState` takes it.
        reserved: as `RowState` takes it.
    """

    def __init__(
        self,
        caches: Sequence[KeyValues],
        num_padded: Tensor,
        read: Callable[[Tensor, LlamaState], Tensor],
        *,
        is_checkpointed: bool = False,
        reserved: Reserved | None = None,
    ) -> None:
        super().__init__(len(num_padded), is_checkpointed=is_checkpointed, reserved=reserved)
        self.caches = caches
        self.num_padded = num_padded
        self.read = read

    def select(self, rows: Tensor) -> None:
        super().select(rows)
        for cache in self.caches:
            cache.select(rows)
        self.num_padded = self.num_padded.index_select(0, rows)


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


class LlamaLayers(Part):
    """Everything but the head (`language_model.model` in a checkpoint)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LlamaLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def ready(self) -> Callable[..., Tensor]:
        layers, norm = [ready(layer) for layer in self.layers], ready(self.norm)
        rotations: Rotations | None = None

        def read(inputs_embeds: Tensor, state: LlamaState) -> Tensor:
            """Reads what follows `state`, and moves it on: (B, S, L) -> (B, S, L)."""
            nonlocal rotations
            if rotations is None:
                rotations = Rotations(self.config, inputs_embeds.dtype, inputs_embeds.device)
            num_new = inputs_embeds.shape[1]
            positions, num_keys = state.next_positions(num_new, inputs_embeds.device)
            # A padded position would be below 0; it is seen by nobody but itself, so any position will do.
            rotation = rotations.at((positions - state.num_padded[:, None]).clamp(min=0), num_keys)
            mask = causal_mask(state.num_padded, positions, num_keys)
            hidden = inputs_embeds
            blocks: Iterable[Block] = checkpointed(self.layers) if state.is_checkpointed else layers
            for layer, cache in zip(blocks, state.caches, strict=True):
                hidden = layer(hidden, rotation, mask, cache, state.lengths)
            state.lengths = [length + num_new for length in state.lengths]
            return norm(hidden)

        return read


class Llama(LanguageModel):
    """The language model (`language_model` in a checkpoint)."""

    _no_split_modules: ClassVar[list[str]] = ["LlamaLayer"]  # FSDP's units

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config: LlamaConfig = config
        self.model = LlamaLayers(config)
        self.lm_head = Head(config.hidden_size, config.vocab_size, bias=False)

    def embed_tokens(self, input_ids: Tensor) -> Tensor:
        return self.model.embed_tokens(input_ids)

    def begin(
        self, inputs_embeds: Tensor, attention_mask: Tensor, *, is_checkpointed: bool = False
    ) -> tuple[Tensor, LlamaState]:
        """Reads the context: the last layer's output, (B, C, L), and the state."""
        num_padded = (attention_mask == 0).sum(dim=1)
        cache = PassingKeyValues if is_checkpointed else KeyValues
        caches = [cache() for _ in self.model.layers]
        state = LlamaState(caches, num_padded, ready(self.model), is_checkpointed=is_checkpointed)
        return state.read(inputs_embeds, state), state

    def prefill(
        self, inputs_embeds: Tensor, attention_mask: Tensor, draft_ids: Tensor | None = None
    ) -> tuple[Tensor, RowState]:
        num_drafted = 0 if draft_ids is None else draft_ids.shape[1]
        if draft_ids is not None:
            inputs_embeds = torch.cat([inputs_embeds, self.embed_tokens(draft_ids)], dim=1)
        hidden, state = self.begin(inputs_embeds, attention_mask)
        # The head is the widest layer: nobody reads what it would say after the context's earlier positions.
        return self.lm_head(hidden[:, -1 - num_drafted :]), state

    def reserve(self, num_rows: int, num_context: int, num_keys: int) -> LlamaState:
        config, like = self.config, self.model.embed_tokens.weight
        num_all = num_context + num_keys  # one sequence
        reserved = Reserved(torch.zeros(num_rows, dtype=torch.long, device=like.device), num_all)
        shape = (num_rows, config.key_value_heads, num_all, config.head_size)
        caches = [ReservedKeyValues(like.new_zeros(shape), like.new_zeros(shape), reserved) for _ in self.model.layers]
        num_padded = torch.zeros_like(reserved.starts)
        return LlamaState(caches, num_padded, ready(self.model), reserved=reserved)

    def prefill_reserved(
        self, state: RowState, inputs_embeds: Tensor, attention_mask: Tensor, draft_ids: Tensor
    ) -> Tensor:
        assert isinstance(state, LlamaState)
        state.num_padded.copy_((attention_mask == 0).sum(dim=1))
        hidden = state.read(torch.cat([inputs_embeds, self.embed_tokens(draft_ids)], dim=1), state)
        return self.lm_head(hidden[:, -1 - draft_ids.shape[1] :])

    def decode(self, input_ids: Tensor, state: DecoderState) -> Tensor:
        assert isinstance(state, LlamaState)
        return self.lm_head(state.read(self.embed_tokens(input_ids), state))

    def target_hidden(self, inputs_embeds: Tensor, attention_mask: Tensor, target_ids: Tensor) -> Tensor:
        # One pass over the one sequence. Nothing follows the last target, so it is not read.
        num_targets = target_ids.shape[1]
        embeds = torch.cat([inputs_embeds, self.embed_tokens(target_ids[:, :-1])], dim=1)
        hidden, _ = self.begin(embeds, attention_mask, is_checkpointed=self.is_checkpointing)
        return hidden[:, -num_targets:]
