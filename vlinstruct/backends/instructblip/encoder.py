"""The vision tower: pixels in, one embedding per patch out. Parameter names are transformers'.

Legend: B images, P positions (patches + class token), D the tower's width.
Source: InstructBLIP (Dai et al., 2023): EVA-CLIP's ViT-g/14 up to its penultimate layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlinstruct.backends.instructblip.attention import Part, activation, attend, ready, split_heads
from vlinstruct.backends.instructblip.configuration import VisionConfig


def resized_positions(table: Tensor, num_patches: int) -> Tensor:
    """Interpolates trained positions to another grid of patches, as transformers' `interpolate_pos_encoding` does.

    Args:
        table: the class token's position and those of a square of patches, (1, P, D).
        num_patches: along a side of the new square.

    Returns:
        (1, 1 + num_patches^2, D), of the table's type; a table of no square as it is, to be refused for its shape.
    """
    side = math.isqrt(table.shape[1] - 1)
    if side * side != table.shape[1] - 1:
        return table
    grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    # In float32: bicubic weights of a half type lose what they interpolate.
    resized = F.interpolate(grid.float(), size=(num_patches, num_patches), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], resized.to(table.dtype).flatten(2).transpose(1, 2)], dim=1)


class VisionEmbeddings(nn.Module):
    """Cuts the picture into patches and adds the class token and the positions."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.position_embedding = nn.Parameter(torch.zeros(1, config.num_positions, config.hidden_size))

    def forward(self, pixel_values: Tensor) -> Tensor:
        patches = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)  # (B, P - 1, D)
        classes = self.class_embedding.expand(len(pixel_values), -1, -1)
        return torch.cat([classes, patches], dim=1) + self.position_embedding


class VisionAttention(Part):
    """Self-attention with one fused matrix for query, key and value."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.head_size = config.hidden_size // config.num_attention_heads
        # EVA has biases for query and value only; transformers stores zeros for the key, so one fused bias is enough.
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.qkv_bias)
        self.projection = nn.Linear(config.hidden_size, config.hidden_size)

    def ready(self) -> Callable[..., Tensor]:
        qkv, projection, head_size = ready(self.qkv), ready(self.projection), self.head_size

        def attend_all(hidden: Tensor) -> Tensor:
            query, key, value = (split_heads(part, head_size) for part in qkv(hidden).chunk(3, dim=-1))
            return projection(attend(query, key, value))

        return attend_all


class VisionMlp(Part):
    """The feed-forward part of a layer."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.activation = activation(config.hidden_act)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def ready(self) -> Callable[..., Tensor]:
        widen, narrow, activate = ready(self.fc1), ready(self.fc2), self.activation
        return lambda hidden: narrow(activate(widen(hidden)))


class VisionLayer(Part):
    """A pre-norm transformer layer."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.self_attn = VisionAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VisionMlp(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def ready(self) -> Callable[..., Tensor]:
        parts = (self.layer_norm1, self.self_attn, self.layer_norm2, self.mlp)
        norm, attention, mlp_norm, mlp = map(ready, parts)

        def layer(hidden: Tensor) -> Tensor:
            hidden = hidden + attention(norm(hidden))
            return hidden + mlp(mlp_norm(hidden))

        return layer


class VisionLayers(nn.Module):
    """The stack of layers: (B, P, D) -> (B, P, D)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, hidden: Tensor) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


class VisionEncoder(nn.Module):
    """The whole tower (`vision_model` in a checkpoint)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        self.encoder = VisionLayers(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encodes pictures.

        Args:
            pixel_values: normalised pixels, (B, 3, image_size, image_size).

        Returns:
            image_embeds, (B, P, D).
        """
        # All positions, the class token's too: the Q-Former reads every one of them.
        return self.post_layernorm(self.hidden_states(pixel_values))

    def hidden_states(self, pixel_values: Tensor) -> Tensor:
        """Returns what the last layer norm reads, (B, P, D): all that stays the same where that norm is trained.

        It is LAVIS' ln_vision. The paper trains the projection alone; the authors' code trains this norm as well.
        """
        return self.encoder(self.embeddings(pixel_values))
