"""What learns, and where what is frozen ends: what is computed once, and what every update computes from it.

The further down the first learning layer lies, the more is kept: the projection's input; the Q-Former's output where
CMAA learns; the vision tower's last hidden states where its layer norm (ln_vision) does. What is frozen need not run in
every epoch: with random weights of FlanT5-XL's shapes, the frozen parts of 150,000 samples took 3 minutes of an H200,
three epochs of the language model 59.

Legend: B rows, Q queries, T instruction tokens, P prefix positions (Q, or 2Q under EMA), I image positions, D the
Q-Former's width, V the vision tower's, L the language model's, R x W a kept row's shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

from vlinstruct.backends.instructblip.adapter import layer_parameters
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.lora import LoraSettings, add_lora, lora_parameters
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.training.settings import TrainingSettings
from vlinstruct.weights.quantization import prepare_for_training


def unfreeze(network: InstructBlip, settings: TrainingSettings) -> dict[str, Parameter]:
    """Freezes everything but what the settings name, which gets float32 weights; sets the EMA flag.

    The projection always learns (section 3.1); that nothing else does is made sure of by name and by count.

    Returns:
        What learns, by transformers' name.
    """
    network.use_ema = settings.ema
    network.requires_grad_(False)
    prepare_for_training(network.language_model)
    if settings.learned_cmaa:
        network.learn_cmaa()
    if settings.lora:
        lora = LoraSettings(r=settings.lora_r, alpha=settings.lora_alpha, dropout=settings.lora_dropout)
        add_lora(network.language_model, lora, seed=settings.seed)
    named = layer_parameters(network, settings.layers)
    for parameter in named.values():
        # A step of 1e-5 is lost in bfloat16, whose numbers lie up to 0.8 % apart.
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    if settings.lora:
        adapters = lora_parameters(network.language_model)
        named |= {f"language_model.{name}": parameter for name, parameter in adapters.items()}
    learning = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    # The authors' code trains ln_vision though the paper says the projection alone: here what learns is asserted.
    names, expected = sorted(learning), sorted(named)
    assert names == expected
    if settings.layers == ("projection",) and not settings.lora:
        inner, outer = network.config.qformer_config.hidden_size, network.config.text_config.hidden_size
        count = sum(parameter.numel() for parameter in learning.values())
        assert names == ["language_projection.bias", "language_projection.weight"]
        assert count == inner * outer + outer
    return learning


class Frontier(Protocol):
    """What is kept of a picture and an instruction, and how the projected prefix comes from it.

    Args:
        backend: computes.
        shape: of a row that is kept.
        is_per_picture: whether all samples of a picture share a row.
    """

    backend: InstructBlipBackend
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

    def __init__(self, backend: InstructBlipBackend) -> None:
        self.backend = backend
        self.shape = (backend.network.num_prefix_tokens, backend.network.config.qformer_config.hidden_size)

    def read(self, pixel_values: Tensor) -> Tensor:
        return self.backend.network.encode_image(pixel_values)

    def rows(self, readings: Tensor, instructions: Sequence[str], num_tokens: int) -> Tensor:
        return self.backend.network.alignment_input(readings, *self.backend.qformer_ids(instructions, num_tokens))

    def prefix(self, rows: Tensor, instructions: Sequence[str]) -> Tensor:
        return _projected(self.backend, rows)


class QFormerOutput:
    """Keeps what the Q-Former returns, (Q + T, D), T the longest instruction's; the projection and CMAA learn."""

    is_per_picture = False

    def __init__(self, backend: InstructBlipBackend, instructions: Sequence[str]) -> None:
        config = backend.network.config
        self.backend = backend
        self.num_queries = config.num_query_tokens
        self.num_tokens = {text: len(backend.qformer_tokenizer.encode(text)) for text in set(instructions)}
        self.shape = (self.num_queries + max(self.num_tokens.values()), config.qformer_config.hidden_size)

    def read(self, pixel_values: Tensor) -> Tensor:
        return self.backend.network.encode_image(pixel_values)

    def rows(self, readings: Tensor, instructions: Sequence[str], num_tokens: int) -> Tensor:
        query_and_text = self.backend.network.query(readings, *self.backend.qformer_ids(instructions, num_tokens))
        joined = torch.cat(query_and_text, dim=1)[:, : self.shape[0]]
        return F.pad(joined, (0, 0, 0, self.shape[0] - joined.shape[1]))

    def prefix(self, rows: Tensor, instructions: Sequence[str]) -> Tensor:
        lengths = torch.tensor([self.num_tokens[text] for text in instructions], device=rows.device)
        text_embeds = rows[:, self.num_queries :]
        mask = torch.arange(text_embeds.shape[1], device=rows.device) < lengths[:, None]
        return _projected(self.backend, self.backend.network.align(rows[:, : self.num_queries], text_embeds, mask))


class VisionHidden:
    """Keeps the vision tower's last hidden states, (I, V); its layer norm learns, and what follows it."""

    is_per_picture = True

    def __init__(self, backend: InstructBlipBackend) -> None:
        config = backend.network.config.vision_config
        self.backend = backend
        self.shape = (config.num_positions, config.hidden_size)

    def read(self, pixel_values: Tensor) -> Tensor:
        return self.backend.network.vision_model.hidden_states(pixel_values)

    def rows(self, readings: Tensor, instructions: Sequence[str], num_tokens: int) -> Tensor:
        return readings

    def prefix(self, rows: Tensor, instructions: Sequence[str]) -> Tensor:
        image_embeds = self.backend.network.vision_model.post_layernorm(rows.float()).to(self.backend.dtype)
        input_ids, attention_mask = self.backend.qformer_ids(instructions)
        return _projected(self.backend, self.backend.network.alignment_input(image_embeds, input_ids, attention_mask))


def frontier(backend: InstructBlipBackend, layers: Sequence[str], instructions: Sequence[str]) -> Frontier:
    """Returns the furthest frontier that lies before all layers that learn.

    Args:
        backend: whose layers they are.
        layers: keys of `backends.instructblip.adapter.LAYERS`.
        instructions: of all samples.
    """
    if "ln_vision" in layers:
        return VisionHidden(backend)
    return QFormerOutput(backend, instructions) if "cmaa" in layers else AlignmentInput(backend)


def _projected(backend: InstructBlipBackend, hidden: Tensor) -> Tensor:
    """(B, P, D) -> (B, P, L), through weights that are float32 while they learn."""
    return backend.network.language_projection(hidden.float()).to(backend.dtype)
