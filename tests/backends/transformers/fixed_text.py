"""A tiny model whose weights are set to say a given text, whatever it reads."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor


def say(folder: Path, tokens: Sequence[str], other: Path) -> Path:
    """Writes the folder of a model that says given tokens after any prompt.

    Args:
        folder: Qwen3-VL's.
        tokens: all different, the end of the turn last.
        other: where it goes.
    """
    model, processor = AutoModelForMultimodalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert len({"Ċ", *tokens}) == len(tokens) + 1
    _follow(model, processor.tokenizer.convert_tokens_to_ids(["Ċ", *tokens]))  # a prompt ends with a line break
    model.save_pretrained(other)
    processor.save_pretrained(other)
    return other


def _follow(model: Any, ids: Sequence[int]) -> None:
    """Sets weights so that each token is followed by the next one, whatever stands before it."""
    decoder = model.model.language_model
    with torch.no_grad():
        for layer in decoder.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        decoder.norm.weight.fill_(1.0)
        directions = torch.nn.functional.normalize(decoder.embed_tokens.weight, dim=-1)
        model.lm_head.weight.zero_()
        for token, follower in pairwise(ids):
            model.lm_head.weight[follower] = 10 * directions[token]
