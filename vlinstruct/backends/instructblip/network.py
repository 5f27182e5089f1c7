"""InstructBLIP as one torch module: image -> encoder -> Q-Former -> (CMAA) -> projection -> language model.

Its parameters have transformers' names, so that any InstructBLIP folder's safetensors load as they are.

Legend: B rows, Q queries, T instruction tokens, P image positions, D the Q-Former's width, L the language model's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlinstruct.backends.instructblip.cmaa import CrossModalAlignmentAttention, alignment_weights, with_alignment
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig, LlamaConfig, T5Config
from vlinstruct.backends.instructblip.encoder import VisionEncoder
from vlinstruct.backends.instructblip.language_model import LanguageModel
from vlinstruct.backends.instructblip.llama import Llama
from vlinstruct.backends.instructblip.qformer import QFormer
from vlinstruct.backends.instructblip.t5 import T5


class InstructBlip(nn.Module):
    """The model, from pixels and token ids to the language model's inputs.

    Args:
        config: the architecture.
        use_ema: whether CMAA's U_mm follows the queries (algorithm 1); a property of the adapter that is loaded.
    """

    def __init__(self, config: InstructBlipConfig, *, use_ema: bool = False) -> None:
        super().__init__()
        self.config = config
        self.use_ema = use_ema
        self.vision_model = VisionEncoder(config.vision_config)
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, config.qformer_config.hidden_size))
        self.qformer = QFormer(config.qformer_config, config.vision_config.hidden_size)
        # None is the paper's formula, which has nothing to learn: a backbone's tensors are then exactly transformers'.
        self.cmaa: CrossModalAlignmentAttention | None = None
        # All that EMA trains (section 3.1). One layer serves E_que and U_mm alike: the paper counts "768*2048+2048"
        # parameters for FlanT5-XL, which is one layer.
        self.language_projection = nn.Linear(config.qformer_config.hidden_size, config.text_config.hidden_size)
        text_config = config.text_config
        assert isinstance(text_config, T5Config | LlamaConfig)
        # The one place that asks which of the two it is; everybody else talks to `LanguageModel`.
        self.language_model: LanguageModel = (
            T5(text_config) if isinstance(text_config, T5Config) else Llama(text_config)
        )

    @property
    def num_prefix_tokens(self) -> int:
        """How many positions an image takes in front of a prompt: Q, or 2Q under EMA."""
        return self.config.num_prefix_tokens(use_ema=self.use_ema)

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, image_size, image_size) -> image_embeds (B, P, D_vision)."""
        return self.vision_model(pixel_values)

    def learn_cmaa(self) -> CrossModalAlignmentAttention:
        """Gives CMAA learned projections, which begin as the paper's formula; returns them."""
        weight = self.language_projection.weight
        self.cmaa = CrossModalAlignmentAttention(weight.shape[1]).to(weight.device, weight.dtype)
        return self.cmaa

    def query(self, image_embeds: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns query_embeds (E_que), (B, Q, D), and text_embeds (E_text), (B, T, D)."""
        return self.qformer(self.query_tokens, input_ids, attention_mask, image_embeds)

    def project(self, query_embeds: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, L)."""
        return self.language_projection(query_embeds)

    def image_prefix(self, image_embeds: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Returns what stands in front of the prompt: (B, Q, L), or (B, 2Q, L) under EMA.

        Args:
            image_embeds: (B, P, D_vision).
            input_ids: what the Q-Former reads, (B, T).
            attention_mask: (B, T), nonzero where `input_ids` is no padding.
        """
        return self.project(self.alignment_input(image_embeds, input_ids, attention_mask))

    def alignment_input(self, image_embeds: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Returns what the projection reads, (B, Q, D), or (B, 2Q, D) under EMA: all that its training needs.

        Args:
            image_embeds: (B, P, D_vision).
            input_ids: what the Q-Former reads, (B, T).
            attention_mask: (B, T), nonzero where `input_ids` is no padding.
        """
        query_embeds, text_embeds = self.query(image_embeds, input_ids, attention_mask)
        return self.align(query_embeds, text_embeds, attention_mask)

    def align(self, query_embeds: Tensor, text_embeds: Tensor, attention_mask: Tensor) -> Tensor:
        """Appends U_mm (eq. 1) to the queries under EMA; without it, E_text is thrown away as in InstructBLIP.

        Args:
            query_embeds: E_que, (B, Q, D).
            text_embeds: E_text, (B, T, D).
            attention_mask: (B, T), nonzero where a token is no padding.

        Returns:
            (B, Q, D), or (B, 2Q, D) under EMA.
        """
        if not self.use_ema:
            return query_embeds
        return with_alignment(query_embeds, text_embeds, attention_mask, self.cmaa)

    def attention(
        self, image_embeds: Tensor, input_ids: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Returns where the queries look and what they read, for people to look at.

        Args:
            image_embeds: (B, P, D_vision).
            input_ids: what the Q-Former reads, (B, T).
            attention_mask: (B, T), nonzero where `input_ids` is no padding.

        Returns:
            The cross-attention's mean over layers and heads, (B, Q, P), and eq. 1's softmax, (B, Q, T), under EMA.
        """
        query_embeds, text_embeds, looks = self.qformer.looks(
            self.query_tokens, input_ids, attention_mask, image_embeds
        )
        if not self.use_ema:
            return looks, None
        weights = alignment_weights if self.cmaa is None else self.cmaa.weights
        return looks, weights(query_embeds, text_embeds, attention_mask)
