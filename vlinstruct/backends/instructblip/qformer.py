"""The Q-Former: learned queries read the image and the instruction. Parameter names are transformers'.

Legend: B rows, Q queries, T instruction tokens, P image positions, D the Q-Former's width. Source: InstructBLIP (Dai et
al., 2023); E_que and E_text are the paper's names (section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vlinstruct.backends.instructblip.attention import Part, activation, attend, ready, split_heads
from vlinstruct.backends.instructblip.configuration import QFormerConfig


class QFormerEmbeddings(nn.Module):
    """Words and their positions, behind the queries."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, query_tokens: Tensor, input_ids: Tensor) -> Tensor:
        # Queries have no positions: they are a set, and the text counts from 0 whatever stands before it.
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        words = self.word_embeddings(input_ids) + self.position_embeddings(positions)
        return self.layernorm(torch.cat([query_tokens.expand(len(words), -1, -1), words], dim=1))


class AddNorm(Part):
    """A linear layer whose output is added to the residual stream and normalised (BERT's order)."""

    def __init__(self, in_features: int, config: QFormerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def ready(self) -> Callable[..., Tensor]:
        dense, norm = ready(self.dense), ready(self.LayerNorm)
        # Normalised after the sum, unlike the vision tower's and the language model's layers.
        return lambda hidden, residual: norm(dense(hidden) + residual)


class QueryKeyValue(Part):
    """The three projections of an attention and the attention itself."""

    def __init__(self, config: QFormerConfig, key_width: int) -> None:
        super().__init__()
        self.head_size = config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(key_width, config.hidden_size)
        self.value = nn.Linear(key_width, config.hidden_size)

    def ready(self) -> Callable[..., Tensor]:
        query, key, value, head_size = ready(self.query), ready(self.key), ready(self.value), self.head_size

        def attend_context(hidden: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
            keys, values = split_heads(key(context), head_size), split_heads(value(context), head_size)
            return attend(split_heads(query(hidden), head_size), keys, values, mask)

        return attend_context

    def weights(self, hidden: Tensor, context: Tensor) -> Tensor:
        """Returns the attention itself, (B, H, S, K), in float32 at least, which `forward`'s kernel does not tell."""
        accumulate = torch.promote_types(hidden.dtype, torch.float32)
        query = split_heads(self.query(hidden), self.head_size).to(accumulate)
        key = split_heads(self.key(context), self.head_size).to(accumulate)
        return (query @ key.mT * self.head_size**-0.5).softmax(dim=-1)


class QFormerAttention(Part):
    """Attention with its residual: over the sequence itself, or over the image."""

    def __init__(self, config: QFormerConfig, key_width: int) -> None:
        super().__init__()
        self.attention = QueryKeyValue(config, key_width)
        self.output = AddNorm(config.hidden_size, config)

    def ready(self) -> Callable[..., Tensor]:
        attention, output = ready(self.attention), ready(self.output)
        return lambda hidden, context, mask=None: output(attention(hidden, context, mask), hidden)


class Intermediate(Part):
    """The widening half of a feed-forward part."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        self.activation = activation(config.hidden_act)
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def ready(self) -> Callable[..., Tensor]:
        dense, activate = ready(self.dense), self.activation
        return lambda hidden: activate(dense(hidden))


class QFormerLayer(Part):
    """Self-attention over queries and text together, cross-attention of the queries, separate feed-forwards."""

    def __init__(self, config: QFormerConfig, image_width: int, *, reads_image: bool) -> None:
        super().__init__()
        self.attention = QFormerAttention(config, config.hidden_size)
        self.crossattention = QFormerAttention(config, image_width) if reads_image else None
        self.intermediate = Intermediate(config)
        self.output = AddNorm(config.intermediate_size, config)
        self.intermediate_query = Intermediate(config)
        self.output_query = AddNorm(config.intermediate_size, config)

    def ready(self) -> Callable[..., Tensor]:
        attend_all = ready(self.attention)
        attend_image = None if self.crossattention is None else ready(self.crossattention)
        widen, narrow = ready(self.intermediate), ready(self.output)
        widen_queries, narrow_queries = ready(self.intermediate_query), ready(self.output_query)

        def layer(hidden: Tensor, mask: Tensor, image_embeds: Tensor, num_queries: int) -> Tensor:
            hidden = attend_all(hidden, hidden, mask)
            queries, text = hidden[:, :num_queries], hidden[:, num_queries:]
            # Only queries read the image. The text learns of it through them, a layer later. Its feed-forward in the
            # last layer got no gradient in InstructBLIP's training, which reads the queries alone: E_text leaves
            # through weights that nobody tuned for it.
            if attend_image is not None:
                queries = attend_image(queries, image_embeds)
            queries = narrow_queries(widen_queries(queries), queries)
            return torch.cat([queries, narrow(widen(text), text)], dim=1)

        return layer


class QFormerLayers(nn.Module):
    """The stack of layers; every `cross_attention_frequency`-th one reads the image."""

    def __init__(self, config: QFormerConfig, image_width: int) -> None:
        super().__init__()
        frequency = config.cross_attention_frequency
        self.layer = nn.ModuleList(
            QFormerLayer(config, image_width, reads_image=index % frequency == 0)
            for index in range(config.num_hidden_layers)
        )

    def forward(self, hidden: Tensor, mask: Tensor, image_embeds: Tensor, num_queries: int) -> Tensor:
        for layer in self.layer:
            hidden = layer(hidden, mask, image_embeds, num_queries)
        return hidden


class QFormer(nn.Module):
    """The Querying Transformer (`qformer` in a checkpoint)."""

    def __init__(self, config: QFormerConfig, image_width: int) -> None:
        super().__init__()
        self.embeddings = QFormerEmbeddings(config)
        self.encoder = QFormerLayers(config, image_width)

    def forward(
        self, query_tokens: Tensor, input_ids: Tensor, attention_mask: Tensor, image_embeds: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Lets the queries read the image in the light of the instruction.

        Args:
            query_tokens: the learned queries, (1, Q, D).
            input_ids: the instruction, (B, T).
            attention_mask: (B, T), nonzero where `input_ids` is no padding.
            image_embeds: (B, P, image width).

        Returns:
            query_embeds (E_que), (B, Q, D), and text_embeds (E_text), (B, T, D); the latter is meaningless at padding.
        """
        num_queries = query_tokens.shape[1]
        # Everything sees everything but padding: queries and text attend to each other both ways.
        is_visible = torch.cat([attention_mask.new_ones(len(input_ids), num_queries), attention_mask], dim=1).bool()
        hidden = self.embeddings(query_tokens, input_ids)  # (B, Q + T, D)
        hidden = self.encoder(hidden, is_visible[:, None, None, :], image_embeds, num_queries)
        return hidden[:, :num_queries], hidden[:, num_queries:]

    def looks(
        self, query_tokens: Tensor, input_ids: Tensor, attention_mask: Tensor, image_embeds: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what `forward` does, and where the queries looked: for people, so slower and never while answering.

        Returns:
            query_embeds, text_embeds, and the cross-attention's mean over the layers that read the image and over
            their heads, (B, Q, P), every query's sum 1.
        """
        weights: list[Tensor] = []

        def keep(attention: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            assert isinstance(attention, QueryKeyValue)
            weights.append(attention.weights(*arguments[:2]).mean(dim=1))

        readers = [module.crossattention for module in self.modules() if isinstance(module, QFormerLayer)]
        hooks = [reader.attention.register_forward_pre_hook(keep) for reader in readers if reader is not None]
        try:
            query_embeds, text_embeds = self(query_tokens, input_ids, attention_mask, image_embeds)
        finally:
            for hook in hooks:
                hook.remove()
        return query_embeds, text_embeds, torch.stack(weights).mean(dim=0)
