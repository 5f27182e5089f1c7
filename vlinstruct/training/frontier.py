"""Where what is frozen ends and what learns begins: what is computed once, and what every update computes from it.

The further down the first learning layer lies, the more is kept: the projection's input; the Q-Former's output where
CMAA learns; the vision tower's last hidden states where its layer norm (ln_vision) does.

Legend: B rows, Q queries, T instruction tokens, P prefix positions (Q, or 2Q under EMA), I image positions, D the
Q-Former's width, V the vision tower's, L the language model's, R x W a kept row's shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from vlinstruct.backends.instructblip.backend import InstructBlipBackend


class Frontier(Protocol):
    """What is kept of a picture and an instruction, and how the projected prefix comes from it.

    Args:
        model: computes.
        shape: of a row that is kept.
        is_per_picture: whether all samples of a picture share a row.
    """

    model: InstructBlipBackend
    shape: tuple[int, int]
    is_per_picture: bool

    def read(self, pixel_values: Tensor) -> Tensor:
        """Computes what all rows of a picture share, (B, I, V), from (B, 3, image_size, image_size)."""
        ...

    def rows(self, readings: Tensor, instructions: Sequence[str], num_tokens: int) -> Tensor:
        """Returns rows, (B, R, W), from what `read` returned; instructions are padded to `num_tokens`."""
        ...

    def prefix(self, rows: Tensor, instructions: Sequence[str]) -> Tensor:
        """Returns what stands in front of the prompts, (B, P, L), from rows on the model's device; differentiable."""
        ...


class AlignmentInput:
    """Keeps what the projection reads, (P, D); only the projection learns."""

    is_per_picture = False

    def __init__(self, model: InstructBlipBackend) -> None:
        config = model.network.config
        positions = config.num_query_tokens * (2 if model.network.use_ema else 1)
        self.model = model
        self.shape = (positions, config.qformer_config.hidden_size)

    def read(self, pixel_values: Tensor) -> Tensor:
        return self.model.network.encode_image(pixel_values)

    def rows(self, readings: Tensor, instructions: Sequence[str], num_tokens: int) -> Tensor:
        return self.model.network.alignment_input(readings, *self.model.qformer_ids(instructions, num_tokens))

    def prefix(self, rows: Tensor, instructions: Sequence[str]) -> Tensor:
        return _projected(self.model, rows)


class QFormerOutput:
    """Keeps what the Q-Former returns, (Q + T, D), T the longest instruction's; the projection and CMAA learn."""

    is_per_picture = False

    def __init__(self, model: InstructBlipBackend, instructions: Sequence[str]) -> None:
        config = model.network.config
        self.model = model
        self.num_queries = config.num_query_tokens
        self.num_tokens = {text: len(model.qformer_tokenizer.encode(text)) for text in set(instructions)}
        self.shape = (self.num_queries + max(self.num_tokens.values()), config.qformer_config.hidden_size)

    def read(self, pixel_values: Tensor) -> Tensor:
        return self.model.network.encode_image(pixel_values)

    def rows(self, readings: Tensor, instructions: Sequence[str], num_tokens: int) -> Tensor:
        both = self.model.network.query(readings, *self.model.qformer_ids(instructions, num_tokens))
        joined = torch.cat(both, dim=1)[:, : self.shape[0]]
        return F.pad(joined, (0, 0, 0, self.shape[0] - joined.shape[1]))

    def prefix(self, rows: Tensor, instructions: Sequence[str]) -> Tensor:
        lengths = torch.tensor([self.num_tokens[text] for text in instructions], device=rows.device)
        text_embeds = rows[:, self.num_queries :]
        mask = torch.arange(text_embeds.shape[1], device=rows.device) < lengths[:, None]
        return _projected(self.model, self.model.network.align(rows[:, : self.num_queries], text_embeds, mask))


class VisionHidden:
    """Keeps the vision tower's last hidden states, (I, V); its layer norm learns, and what follows it."""

    is_per_picture = True

    def __init__(self, model: InstructBlipBackend) -> None:
        config = model.network.config.vision_config
        self.model = model
        self.shape = (config.num_positions, config.hidden_size)

    def read(self, pixel_values: Tensor) -> Tensor:
        return self.model.network.vision_model.hidden_states(pixel_values)

    def rows(self, readings: Tensor, instructions: Sequence[str], num_tokens: int) -> Tensor:
        return readings

    def prefix(self, rows: Tensor, instructions: Sequence[str]) -> Tensor:
        image_embeds = self.model.network.vision_model.post_layernorm(rows.float()).to(self.model.dtype)
        input_ids, attention_mask = self.model.qformer_ids(instructions)
        return _projected(self.model, self.model.network.alignment_input(image_embeds, input_ids, attention_mask))


def frontier(model: InstructBlipBackend, layers: Sequence[str], instructions: Sequence[str]) -> Frontier:
    """Returns the furthest frontier that lies before all layers that learn.

    Args:
        model: whose layers they are.
        layers: keys of `checkpoints.adapter.LAYERS`.
        instructions: of all samples.
    """
    if "ln_vision" in layers:
        return VisionHidden(model)
    return QFormerOutput(model, instructions) if "cmaa" in layers else AlignmentInput(model)


def _projected(model: InstructBlipBackend, hidden: Tensor) -> Tensor:
    """(B, P, D) -> (B, P, L), through weights that are float32 while they learn."""
    return model.network.language_projection(hidden.float()).to(model.dtype)
