"""T5: the encoder-decoder language model (FlanT5-XL and -XXL). Parameter names are transformers'.

The context goes through the encoder; the decoder starts from its start token. There is no dropout: the language model
is frozen in all that we do (section 3.1).

Legend: B rows, C context positions, S decoder positions, K key positions, H heads, L width, V vocabulary.
Source: T5 (Raffel et al., 2020), version 1.1 with gated feed-forward and a head of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import ClassVar, cast

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
from vlinstruct.backends.instructblip.configuration import T5Config
from vlinstruct.backends.instructblip.language_model import (
    Block,
    DecoderState,
    Head,
    LanguageModel,
    RMSNorm,
    RowState,
    checkpointed,
)

_ROOM = 64  # positions ahead of which the decoder's bias is looked up


def relative_position_bucket(distance: Tensor, config: T5Config, *, is_bidirectional: bool) -> Tensor:
    """Buckets key position minus query position: exact for small distances, logarithmic up to the maximum.

    Args:
        distance: any shape, key position minus query position.
        config: gives the number of buckets and the largest distance told apart.
        is_bidirectional: the encoder tells before from behind with half the buckets each; the decoder sees only behind.

    Returns:
        Bucket indices, same shape.
    """
    num_buckets = config.relative_attention_num_buckets // (2 if is_bidirectional else 1)
    offset = (distance > 0) * num_buckets if is_bidirectional else torch.zeros_like(distance)
    steps = distance.abs() if is_bidirectional else (-distance).clamp(min=0)
    num_exact = num_buckets // 2  # as many buckets for the single steps, the other half for all beyond
    growth = torch.log(steps.clamp(min=1).float() / num_exact) / math.log(
        config.relative_attention_max_distance / num_exact
    )
    large = (num_exact + (growth * (num_buckets - num_exact)).long()).clamp(max=num_buckets - 1)
    return offset + torch.where(steps < num_exact, steps, large)


@cache  # the same few hundred numbers in every pass
def _all_buckets(config: T5Config, is_bidirectional: bool, device: torch.device) -> Tensor:
    """Returns the buckets of all distances from minus to plus the largest; beyond, they are the same as at the ends."""
    farthest = config.relative_attention_max_distance
    with torch.inference_mode(False):  # a training may be the next to use it
        distance = torch.arange(-farthest, farthest + 1, device=device)
        return relative_position_bucket(distance, config, is_bidirectional=is_bidirectional)


class T5Attention(Part):
    """Attention without scale or bias; the first layer of a stack holds the position bias of all."""

    def __init__(self, config: T5Config, *, has_position_bias: bool = False) -> None:
        super().__init__()
        inner = config.inner_size
        self.config = config
        self.head_size = config.d_kv
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)
        if has_position_bias:  # a checkpoint has one table per stack, under its first layer's name
            self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)

    def keys_values(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Returns what computes keys and values, (B, H, K, W) each, of a context (B, K, L)."""
        key, value, head_size = ready(self.k), ready(self.v), self.head_size
        return lambda context: (split_heads(key(context), head_size), split_heads(value(context), head_size))

    def relative_position_bias(self, distance: Tensor, *, is_bidirectional: bool) -> Tensor:
        """(..., K) of key position minus query position -> (..., H, K)."""
        farthest = self.config.relative_attention_max_distance
        of_distance = _all_buckets(self.config, is_bidirectional, distance.device)
        buckets = of_distance[distance.clamp(-farthest, farthest) + farthest]
        return self.relative_attention_bias(buckets).movedim(-1, -2)

    def ready(self) -> Callable[..., Tensor]:
        query, output, head_size = ready(self.q), ready(self.o), self.head_size

        def read(hidden: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
            # No scale: T5 has it in the initialisation of its weights.
            return output(attend(split_heads(query(hidden), head_size), keys, values, mask=bias, scale=1.0))

        return read


class T5GatedFeedForward(Part):
    """Version 1.1's feed-forward part: one half gates the other."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.activation = activation(config.dense_act_fn)
        self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)

    def ready(self) -> Callable[..., Tensor]:
        gate, value, output, activate = ready(self.wi_0), ready(self.wi_1), ready(self.wo), self.activation
        return lambda hidden: output(activate(gate(hidden)) * value(hidden))


class T5PlainFeedForward(Part):
    """The first T5's feed-forward part."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.activation = activation(config.dense_act_fn)
        self.wi = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)

    def ready(self) -> Callable[..., Tensor]:
        wide, output, activate = ready(self.wi), ready(self.wo), self.activation
        return lambda hidden: output(activate(wide(hidden)))


class SelfAttentionLayer(Part):
    """Norm, self-attention, residual."""

    def __init__(self, config: T5Config, *, has_position_bias: bool) -> None:
        super().__init__()
        self.SelfAttention = T5Attention(config, has_position_bias=has_position_bias)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def ready(self) -> Callable[..., Tensor]:
        norm, attention = ready(self.layer_norm), ready(self.SelfAttention)
        keys_values = self.SelfAttention.keys_values()

        def attend_self(hidden: Tensor, bias: Tensor, cache: KeyValues, starts: Sequence[int]) -> Tensor:
            normed = norm(hidden)
            keys, values = cache.append(*keys_values(normed), starts)
            return hidden + attention(normed, keys, values, bias)

        return attend_self


class CrossAttentionLayer(Part):
    """Norm, attention over the encoder's output, residual."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.EncDecAttention = T5Attention(config)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def ready(self) -> Callable[..., Tensor]:
        norm, attention = ready(self.layer_norm), ready(self.EncDecAttention)

        def attend_context(hidden: Tensor, context: KeyValues, context_bias: Tensor) -> Tensor:
            return hidden + attention(norm(hidden), context.keys, context.values, context_bias)

        return attend_context


class FeedForwardLayer(Part):
    """Norm, feed-forward, residual."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.DenseReluDense = T5GatedFeedForward(config) if config.is_gated else T5PlainFeedForward(config)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def ready(self) -> Callable[..., Tensor]:
        norm, feed_forward = ready(self.layer_norm), ready(self.DenseReluDense)
        return lambda hidden: hidden + feed_forward(norm(hidden))


class EncoderBlock(Part):
    """Self-attention and feed-forward."""

    def __init__(self, config: T5Config, *, has_position_bias: bool) -> None:
        super().__init__()
        attention = SelfAttentionLayer(config, has_position_bias=has_position_bias)
        self.layer = nn.ModuleList([attention, FeedForwardLayer(config)])

    def ready(self) -> Callable[..., Tensor]:
        attend_self, feed_forward = map(ready, self.layer)
        # An encoder reads its sequence once, so there is nothing to keep: the cache is empty and thrown away.
        return lambda hidden, bias: feed_forward(attend_self(hidden, bias, KeyValues(), (0,)))


class DecoderBlock(Part):
    """Self-attention, cross-attention and feed-forward."""

    def __init__(self, config: T5Config, *, has_position_bias: bool) -> None:
        super().__init__()
        attention = SelfAttentionLayer(config, has_position_bias=has_position_bias)
        self.layer = nn.ModuleList([attention, CrossAttentionLayer(config), FeedForwardLayer(config)])

    def read_context(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the cross-attention's keys and values of the encoder's output."""
        return cast(T5Attention, self.get_submodule("layer.1.EncDecAttention")).keys_values()(encoded)

    def ready(self) -> Callable[..., Tensor]:
        attend_self, attend_context, feed_forward = map(ready, self.layer)

        def decode(hidden: Tensor, bias: Tensor, block: int, state: T5State) -> Tensor:
            hidden = attend_self(hidden, bias, state.own[block], state.lengths)
            return feed_forward(attend_context(hidden, state.context[block], state.context_bias))

        return decode


class T5State(RowState):
    """What the decoder has read so far.

    Args:
        context: per block, keys and values of the encoder's output; computed once.
        context_bias: (B, 1, 1, C), 0 where a context position may be seen, else -inf.
        read: tokens that follow, (B, S), to their logits, (B, S, V); the layers looked up once a text.
        own: per block, keys and values of the decoder's own tokens.
        is_checkpointed: as `RowState` takes it.
        reserved: as `RowState` takes it.
    """

    def __init__(
        self,
        context: list[KeyValues],
        context_bias: Tensor,
        read: Callable[[Tensor, T5State], Tensor],
        *,
        own: Sequence[KeyValues],
        is_checkpointed: bool = False,
        reserved: Reserved | None = None,
    ) -> None:
        super().__init__(len(context_bias), is_checkpointed=is_checkpointed, reserved=reserved)
        self.own = own
        self.context = context
        self.context_bias = context_bias
        self.read = read

    def select(self, rows: Tensor) -> None:
        super().select(rows)
        # The context's, too: rows of one context go on apart from here, and a batched product wants them side by side.
        for key_values in (*self.own, *self.context):
            key_values.select(rows)
        self.context_bias = self.context_bias.index_select(0, rows)


def position_bias(blocks: nn.ModuleList, distance: Tensor, *, is_bidirectional: bool) -> Tensor:
    """Returns the bias that all blocks of a stack add to their attention logits.

    Args:
        blocks: the stack's.
        distance: key position minus query position, (..., K).
        is_bidirectional: where not, later keys get -inf.

    Returns:
        (..., H, K).
    """
    attention = cast(T5Attention, blocks[0].get_submodule("layer.0.SelfAttention"))
    bias = attention.relative_position_bias(distance, is_bidirectional=is_bidirectional)
    return bias if is_bidirectional else bias.masked_fill((distance > 0).unsqueeze(-2), -torch.inf)


def by_query(bias: Tensor, num_queries: int) -> Tensor:
    """Spreads the bias of every distance over queries that stand in a row: (H, S + K - 1) -> (H, S, K).

    S + K - 1 lookups in place of S * K.

    Args:
        bias: of the distances from minus that of the last query to the first key, on to that of the first query to the
            last key.
        num_queries: S.

    >>> by_query(torch.tensor([[-2, -1, 0, 1]]), 2).tolist()
    [[[-1, 0, 1], [-2, -1, 0]]]
    """
    return bias.unfold(-1, bias.shape[-1] + 1 - num_queries, 1).flip(-2)


class T5Encoder(nn.Module):
    """The encoder: (B, C, L) -> (B, C, L)."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.block = nn.ModuleList(EncoderBlock(config, has_position_bias=i == 0) for i in range(config.num_layers))
        self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, inputs_embeds: Tensor, context_bias: Tensor, *, is_checkpointed: bool = False) -> Tensor:
        num_positions = inputs_embeds.shape[1]
        distances = torch.arange(1 - num_positions, num_positions, device=inputs_embeds.device)
        bias = by_query(position_bias(self.block, distances, is_bidirectional=True), num_positions) + context_bias
        hidden = inputs_embeds
        blocks: Iterable[Block] = checkpointed(self.block) if is_checkpointed else self.block
        for block in blocks:
            hidden = block(hidden, bias)
        return self.final_layer_norm(hidden)


class T5Decoder(Part):
    """The decoder: (B, S, L) -> (B, S, L), after what its state has read."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        num_layers = config.num_decoder_layers
        self.block = nn.ModuleList(DecoderBlock(config, has_position_bias=i == 0) for i in range(num_layers))
        self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def read_context(self, encoded: Tensor, *, is_checkpointed: bool = False) -> list[KeyValues]:
        """Computes every block's keys and values of the encoder's output, once per context."""
        reads = [cast(DecoderBlock, block).read_context for block in self.block]
        return [KeyValues(*read(encoded)) for read in (checkpointed(reads) if is_checkpointed else reads)]

    def ready(self) -> Callable[..., Tensor]:
        blocks, norm = [ready(block) for block in self.block], ready(self.final_layer_norm)
        # By distance: what a query adds to a key so far before it, and -inf behind it.
        bias_at = torch.empty(0)

        def decode(hidden: Tensor, state: T5State) -> Tensor:
            num_new, device = hidden.shape[1], hidden.device
            if len(set(state.lengths)) == 1 and state.reserved is None:
                nonlocal bias_at
                num_keys = state.lengths[0] + num_new
                if bias_at.shape[-1] < 2 * num_keys:
                    farthest = num_keys + _ROOM
                    distances = torch.arange(-farthest, farthest, device=device)
                    bias_at = position_bias(self.block, distances, is_bidirectional=False)
                zero = bias_at.shape[-1] // 2
                # Four dimensions: with three, torch's attention takes a way that is three times as long.
                bias = by_query(bias_at[:, zero + 1 - num_keys : zero + num_new], num_new)[None]
            else:
                positions, num_keys = state.next_positions(num_new, device)
                distances = torch.arange(num_keys, device=device) - positions[..., None]  # (B, S, K)
                bias = position_bias(self.block, distances, is_bidirectional=False).movedim(-2, -3)
            for index, block in enumerate(checkpointed(self.block) if state.is_checkpointed else blocks):
                hidden = block(hidden, bias, index, state)
            state.lengths = [length + num_new for length in state.lengths]
            return norm(hidden)

        return decode


class T5(LanguageModel):
    """The language model (`language_model` in a checkpoint)."""

    _no_split_modules: ClassVar[list[str]] = ["EncoderBlock", "DecoderBlock"]  # FSDP's units

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config: T5Config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = T5Encoder(config)
        self.decoder = T5Decoder(config)
        self.lm_head = Head(config.d_model, config.vocab_size, bias=False)
        # The first T5 shares one table between embedding and head, and scales what the head reads by d_model^-0.5;
        # FlanT5 has a head of its own and no scale.
        self.output_scale = config.d_model**-0.5 if config.scale_decoder_outputs else 1.0

    def embed_tokens(self, input_ids: Tensor) -> Tensor:
        return self.shared(input_ids)

    def begin(self, inputs_embeds: Tensor, attention_mask: Tensor, *, is_checkpointed: bool = False) -> T5State:
        """Encodes the context and computes the decoder's cross-attention keys and values."""
        # One addend for padding and positions: attention takes a single mask, and T5's position bias is a floating one.
        is_visible = attention_mask.bool()[:, None, None, :]
        context_bias = torch.zeros_like(is_visible, dtype=inputs_embeds.dtype).masked_fill(~is_visible, -torch.inf)
        encoded = self.encoder(inputs_embeds, context_bias, is_checkpointed=is_checkpointed)
        context = self.decoder.read_context(encoded, is_checkpointed=is_checkpointed)
        own = [PassingKeyValues() if is_checkpointed else KeyValues() for _ in context]
        return T5State(context, context_bias, self._read(), own=own, is_checkpointed=is_checkpointed)

    def _read(self) -> Callable[[Tensor, T5State], Tensor]:
        embed, decode, head, scale = ready(self.shared), ready(self.decoder), ready(self.lm_head), self.output_scale
        return lambda input_ids, state: head(decode(embed(input_ids), state) * scale)

    def start_ids(self, like: Tensor) -> Tensor:
        """The decoder's start token for every row of `like`, (B, 1)."""
        return torch.full((len(like), 1), self.config.decoder_start_token_id, device=like.device)

    def prefill(
        self, inputs_embeds: Tensor, attention_mask: Tensor, draft_ids: Tensor | None = None
    ) -> tuple[Tensor, RowState]:
        state = self.begin(inputs_embeds, attention_mask)
        first_ids = self.start_ids(inputs_embeds)
        return self.decode(first_ids if draft_ids is None else torch.cat([first_ids, draft_ids], dim=1), state), state

    def reserve(self, num_rows: int, num_context: int, num_keys: int) -> T5State:
        config, like = self.config, self.shared.weight
        num_fed = 1 + num_keys  # behind the start token
        reserved = Reserved(torch.zeros(num_rows, dtype=torch.long, device=like.device), num_fed)

        def zeros(num_positions: int) -> Tensor:
            return like.new_zeros(num_rows, config.num_heads, num_positions, config.d_kv)

        return T5State(
            [KeyValues(zeros(num_context), zeros(num_context)) for _ in self.decoder.block],
            like.new_zeros(num_rows, 1, 1, num_context),
            self._read(),
            own=[ReservedKeyValues(zeros(num_fed), zeros(num_fed), reserved) for _ in self.decoder.block],
            reserved=reserved,
        )

    def prefill_reserved(
        self, state: RowState, inputs_embeds: Tensor, attention_mask: Tensor, draft_ids: Tensor
    ) -> Tensor:
        assert isinstance(state, T5State)
        begun = self.begin(inputs_embeds, attention_mask)
        state.context_bias.copy_(begun.context_bias)
        for kept, computed in zip(state.context, begun.context, strict=True):
            kept.fill(computed)
        return self.decode(torch.cat([self.start_ids(draft_ids), draft_ids], dim=1), state)

    def decode(self, input_ids: Tensor, state: DecoderState) -> Tensor:
        assert isinstance(state, T5State)
        return state.read(input_ids, state)

    def target_hidden(self, inputs_embeds: Tensor, attention_mask: Tensor, target_ids: Tensor) -> Tensor:
        # Shifted by the start token: position i has read the targets before i, and predicts the i-th.
        shifted = torch.cat([self.start_ids(target_ids), target_ids[:, :-1]], dim=1)
        state = self.begin(inputs_embeds, attention_mask, is_checkpointed=self.is_checkpointing)
        return self.decoder(self.shared(shifted), state) * self.output_scale
