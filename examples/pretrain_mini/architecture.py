"""mini's architecture, with a T5 or a Llama, how its parameters start, and the pixel values it takes.

To copy, a language model looks for the token it wrote last and takes the one behind it, so every position has to know
its neighbours: heads start out looking at near tokens. Llama's rotary positions have no bias by distance that could
start there, as T5's do; instead queries and keys get constant parts that agree best when they are turned to a certain
distance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from pretrain_mini.guidance import on_device
from pretrain_mini.labels import NUM_QUERY_TOKENS
from pretrain_mini.local_vision import OFFSETS, look_at_neighbours, whiten_patches
from pretrain_mini.reading import LanguageModelName
from vlinstruct.backends.instructblip.configuration import (
    InstructBlipConfig,
    LlamaConfig,
    QFormerConfig,
    T5Config,
    TextConfig,
    VisionConfig,
)
from vlinstruct.backends.instructblip.language_model import LanguageModel
from vlinstruct.backends.instructblip.llama import Llama, LlamaAttention
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.backends.instructblip.t5 import T5, T5Attention, relative_position_bucket
from vlinstruct.mini.draw import draw
from vlinstruct.mini.fonts import BUILT_IN
from vlinstruct.mini.world import sample_scene

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGE_SIZE = 120
PATCH_SIZE = 12
GRID = IMAGE_SIZE // PATCH_SIZE
_WIDTH = 160
_HEAD_WIDTH = 32
_VISION_HEADS = len(OFFSETS)
_STATISTICS_PICTURES = 200
# Where transformers marks the image's places in the prompt: <unk>, which no text is read as. Ours needs no marks.
_PLACEHOLDER_ID = 2


def mini_config(
    vocab_size: int, qformer_vocab_size: int, language_model: LanguageModelName = "t5"
) -> InstructBlipConfig:
    """Returns the configuration for tokenizers of these sizes."""
    return InstructBlipConfig(
        vision_config=VisionConfig(
            hidden_size=_WIDTH,
            intermediate_size=4 * _WIDTH,
            num_hidden_layers=5,
            num_attention_heads=_VISION_HEADS,
            image_size=IMAGE_SIZE,
            patch_size=PATCH_SIZE,
        ),
        qformer_config=QFormerConfig(
            vocab_size=qformer_vocab_size,
            hidden_size=_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=_WIDTH // _HEAD_WIDTH,
            intermediate_size=3 * _WIDTH,
            max_position_embeddings=512,
            cross_attention_frequency=1,
        ),
        text_config=_text_config(vocab_size, language_model),
        num_query_tokens=NUM_QUERY_TOKENS,
        image_token_index=_PLACEHOLDER_ID,
    )


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


def _text_config(vocab_size: int, language_model: LanguageModelName) -> TextConfig:
    if language_model == "llama":
        return llama_config(vocab_size, _WIDTH, _HEAD_WIDTH)
    return T5Config(
        vocab_size=vocab_size,
        d_model=_WIDTH,
        d_kv=_HEAD_WIDTH,
        d_ff=384,
        num_layers=3,
        num_decoder_layers=2,
        num_heads=_WIDTH // _HEAD_WIDTH,
        feed_forward_proj="gated-gelu",
        dense_act_fn="gelu",
        tie_word_embeddings=False,
        scale_decoder_outputs=False,
    )


def initialise(model: InstructBlip, pixel_values: Tensor) -> None:
    """Gives every parameter its start: matrices scaled by their fan-in, embeddings small, norms one.

    T5 attends without a scale, so its query projections start smaller by the root of the head width; the matrices that
    write to a residual stream start smaller by the root of twice the depth. The vision tower starts as a local one, and
    heads of the language model start out looking at near tokens.

    Args:
        model: is changed in place.
        pixel_values: (P, 3, H, W), pictures whose patches' statistics the patch embedding starts from.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            _initialise_matrix(name, module)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.1)
    nn.init.normal_(model.query_tokens, std=0.3)
    nn.init.normal_(model.vision_model.embeddings.class_embedding, std=0.02)
    look_at_neighbours(model.vision_model, model.config.vision_config)
    whiten_patches(model.vision_model.embeddings.patch_embedding, pixel_values)
    _START_NEAR[type(model.language_model)](model.language_model)


# Which earlier or later token a head of the encoder, and of the decoder, starts out looking at.
_ENCODER_OFFSETS = (-1, 1, -2)
_DECODER_OFFSETS = (-1, -2)
_OFFSET_BIAS = 5.0


@torch.no_grad()
def look_at_near_tokens(language_model: T5) -> None:
    """Starts the first heads of T5's self-attentions with a bias towards one relative position each.

    An optimizer that moves a bias by a thousandth a step takes long to get there.
    """
    for stack, offsets in ((language_model.encoder, _ENCODER_OFFSETS), (language_model.decoder, _DECODER_OFFSETS)):
        attention = cast(T5Attention, stack.block[0].get_submodule("layer.0.SelfAttention"))
        buckets = relative_position_bucket(
            torch.tensor(offsets), attention.config, is_bidirectional=stack is language_model.encoder
        )
        attention.relative_attention_bias.weight[buckets, torch.arange(len(offsets))] += _OFFSET_BIAS


# Which earlier token each of the first layer's heads starts out looking at.
_LLAMA_OFFSETS = (-1, -2, -3)
# Of the logits' part that falls with the distance from there, for each of the fastest frequencies: 99 % of the
# attention goes to the wanted one of 300 tokens.
_LLAMA_SHARPNESS = 8.0
_LLAMA_FREQUENCIES = 6


def turned(offset: int, config: LlamaConfig) -> Tensor:
    """Returns (W,): a constant key that agrees best with the same key for offset 0, as a query, `offset` tokens later.

    Args:
        offset: key position minus query position.
        config: gives the head's width W and the frequencies.
    """
    half = config.head_size // 2
    angles = -offset / config.rope_theta ** (torch.arange(half) / half)
    length = math.sqrt(_LLAMA_SHARPNESS * math.sqrt(config.head_size))
    size = torch.where(torch.arange(half) < _LLAMA_FREQUENCIES, length, 0.0)
    return torch.cat([size * angles.cos(), size * angles.sin()])


@torch.no_grad()
def look_at_earlier_tokens(language_model: Llama) -> None:
    """Starts the first layer's heads looking at one earlier token each."""
    attention = language_model.model.layers[0].get_submodule("self_attn")
    assert isinstance(attention, LlamaAttention)
    config = language_model.model.config
    for head, offset in enumerate(_LLAMA_OFFSETS):
        rows = slice(head * config.head_size, (head + 1) * config.head_size)
        attention.q_proj.bias[rows] = turned(0, config)
        attention.k_proj.bias[rows] = turned(offset, config)


_START_NEAR: Mapping[type[LanguageModel], Callable[[Any], None]] = {
    T5: look_at_near_tokens,
    Llama: look_at_earlier_tokens,
}
_WRITES_TO_RESIDUAL = ("self_attn.projection", "mlp.fc2", ".o", ".wo", ".o_proj", ".down_proj")
_DEPTH = 4


def _initialise_matrix(name: str, module: nn.Linear | nn.Conv2d) -> None:
    std = math.sqrt(1 / module.weight[0].numel())
    if name.startswith("language_model") and name.endswith(".q"):
        std /= math.sqrt(_HEAD_WIDTH)
    if name.endswith(_WRITES_TO_RESIDUAL):
        std /= math.sqrt(2 * _DEPTH)
    if name.endswith("lm_head"):
        std /= 4
    nn.init.normal_(module.weight, std=std)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _sample_pictures(side: int) -> Tensor:
    """Returns pixel values of pictures drawn without any installed font."""
    scenes = (sample_scene(seed, fonts=(BUILT_IN,)) for seed in range(_STATISTICS_PICTURES))
    pixels = np.stack([np.asarray(draw(scene, (side, side))).transpose(2, 0, 1) for scene in scenes])
    return normalised(torch.from_numpy(pixels))


def new_model(config: InstructBlipConfig, seed: int) -> InstructBlip:
    """Builds an untrained mini; the same seed gives the same parameters."""
    torch.manual_seed(seed)
    model = InstructBlip(config)
    initialise(model, _sample_pictures(config.vision_config.image_size))
    return model


def normalised(pixels: Tensor) -> Tensor:
    """(P, 3, H, W) of 0 to 255 -> pixel_values with CLIP's mean and standard deviation."""
    mean, std = (
        on_device(np.array(values, np.float32), pixels.device).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD)
    )
    return (pixels.float() / 255 - mean) / std
