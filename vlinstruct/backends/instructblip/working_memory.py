"""What a model needs beside its weights while it computes: the caches of what it has read, and the largest activations.

Estimates from the configuration, for plans and refusals; what a library allocates for itself is not in them.

Legend: B rows, C context positions (image prefix and prompt), S written tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig, LlamaConfig, T5Config


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked of a model at once.

    Args:
        rows: pictures that go through it together, B.
        prompt_tokens: of each row's prompt; the image prefix is added, twice its queries as under EMA.
        new_tokens: of each row's answer, S.
    """

    rows: int = 1
    prompt_tokens: int = 128
    new_tokens: int = 64

    def context(self, config: InstructBlipConfig) -> int:
        """Returns C."""
        return 2 * config.num_query_tokens + self.prompt_tokens


def cache_bytes(config: InstructBlipConfig, load: Load, itemsize: int) -> int:
    """Returns what keys and values take: of context and answer, in every layer that decodes."""
    text = config.text_config
    if isinstance(text, T5Config):
        layers, width = text.num_decoder_layers, text.num_heads * text.d_kv
    else:
        layers, width = text.num_hidden_layers, text.key_value_heads * text.head_size
    return 2 * layers * load.rows * (load.context(config) + load.new_tokens) * width * itemsize


def activation_bytes(config: InstructBlipConfig, load: Load, itemsize: int) -> int:
    """Returns what the widest layer keeps at once: the vision tower's or the language model's."""
    vision, text = config.vision_config, config.text_config
    inner = text.intermediate_size if isinstance(text, LlamaConfig) else text.d_ff
    seen = load.rows * vision.num_positions * (4 * vision.hidden_size + 2 * vision.intermediate_size) * itemsize
    read = load.rows * load.context(config) * (4 * text.hidden_size + 3 * inner) * itemsize
    bias = load.context(config) ** 2 * text.num_heads * itemsize if isinstance(text, T5Config) else 0
    logits = load.rows * text.vocab_size * (4 + itemsize)
    return max(seen, read + bias) + logits


def working_bytes(config: InstructBlipConfig, load: Load, itemsize: int) -> int:
    """Returns both together."""
    return cache_bytes(config, load, itemsize) + activation_bytes(config, load, itemsize)
