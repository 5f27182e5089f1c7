"""mini-llama's language model, and how its attention starts: the first layer looks at near tokens.

To copy, a model looks for the token it wrote last and takes the one behind it, so every position has to know its
neighbours. Rotary positions have no bias by distance that could start there, as T5's do; instead queries and keys get
constant parts that agree best when they are turned to a certain distance.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vlinstruct.backends.instructblip.configuration import LlamaConfig
from vlinstruct.backends.instructblip.llama import Llama, LlamaAttention

# Which earlier token each of the first layer's heads starts out looking at.
_OFFSETS = (-1, -2, -3)
# Of the logits' part that falls with the distance from there, for each of the fastest frequencies: 99 % of the
# attention goes to the wanted one of 300 tokens.
_SHARPNESS = 8.0
_FREQUENCIES = 6


def llama_config(vocab_size: int, width: int, head_width: int) -> LlamaConfig:
    """Returns the configuration for a tokenizer of this size; `</s>` begins and ends a text."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=432,
        num_hidden_layers=6,
        num_attention_heads=width // head_width,
        max_position_embeddings=1024,
        attention_bias=True,
        bos_token_id=1,
        eos_token_id=1,
    )


def turned(offset: int, config: LlamaConfig) -> Tensor:
    """Returns (W,): a constant key that agrees best with the same key for offset 0, as a query, `offset` tokens later.

    Args:
        offset: key position minus query position.
        config: gives the head's width W and the frequencies.
    """
    half = config.head_size // 2
    angles = -offset / config.rope_theta ** (torch.arange(half) / half)
    length = math.sqrt(_SHARPNESS * math.sqrt(config.head_size))
    size = torch.where(torch.arange(half) < _FREQUENCIES, length, 0.0)
    return torch.cat([size * angles.cos(), size * angles.sin()])


@torch.no_grad()
def look_at_earlier_tokens(language_model: Llama) -> None:
    """Starts the first layer's heads looking at one earlier token each."""
    attention = language_model.model.layers[0].get_submodule("self_attn")
    assert isinstance(attention, LlamaAttention)
    config = language_model.model.config
    for head, offset in enumerate(_OFFSETS):
        rows = slice(head * config.head_size, (head + 1) * config.head_size)
        attention.q_proj.bias[rows] = turned(0, config)
        attention.k_proj.bias[rows] = turned(offset, config)
