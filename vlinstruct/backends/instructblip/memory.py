"""Does an InstructBLIP fit: what it takes in memory, and where it goes on this machine.

Weights are counted; keys, values and activations are estimated from the configuration, for plans and refusals: what a
library allocates for itself is not in them.

Legend: B rows, C context positions (image prefix and prompt), S written tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.language_model import LOSS_CHUNK
from vlinstruct.backends.instructblip.load import empty_model
from vlinstruct.backends.memory import Load, working_bytes
from vlinstruct.settings import Quantization
from vlinstruct.values import Identity
from vlinstruct.weights.memory import WeightCount, available_bytes, count_weights, require_memory, stored_shapes
from vlinstruct.weights.placement import Budget, Placement, distribute, free_bytes, gpus

# Of FlanT5-XL's shapes an H200 took 1.06 to 1.33 times what is counted (peaks of 16.0 to 80.2 GB, weights included, at
# batches of 8 to 64, tests/tools/REAL_SHAPES.md): the rest is the allocator's, and what kernels need for themselves.
_MEASURED = 1.35


class InstructBlipNeeds:
    """What an InstructBLIP takes, by its configuration."""

    def __init__(self, config: InstructBlipConfig) -> None:
        self._config = config
        # The longer prefix: whether an adapter will switch EMA on is not known yet.
        self.media_tokens = config.num_prefix_tokens(use_ema=True)
        self.overflows_in_float16 = config.text_config.overflows_in_float16

    @cached_property
    def weights(self) -> WeightCount:
        """Its numbers."""
        shapes = ((name, tuple(tensor.shape)) for name, tensor in empty_model(self._config).state_dict().items())
        return count_weights(shapes, self._config.quantizable)

    def cache_bytes(self, load: Load, itemsize: int) -> int:
        """Returns what keys and values take: of context and answer, in every layer that decodes."""
        return self._config.text_config.cache_bytes(load.rows * (self._context(load) + load.new_tokens), itemsize)

    def activation_bytes(self, load: Load, itemsize: int) -> int:
        """Returns what the widest layer keeps at once, the vision tower's or the language model's, and the logits."""
        vision, text = self._config.vision_config, self._config.text_config
        width = 4 * vision.hidden_size + 2 * vision.intermediate_size
        vision_bytes = load.rows * vision.num_positions * width * itemsize
        text_bytes = text.activation_bytes(load.rows, self._context(load), itemsize)
        logits_bytes = load.rows * text.vocab_size * (4 + itemsize)  # once more in float32
        # The larger, not the sum: the tower is done with its layers when the language model begins.
        return max(vision_bytes, text_bytes) + logits_bytes

    def training_bytes(
        self,
        load: Load,
        itemsize: int,
        *,
        gradient_checkpointing: bool = False,
        lora: bool = False,
        quantize: Quantization | None = None,
    ) -> int:
        """Returns what an update keeps of a batch for its gradients, and what it computes with beside, estimated."""
        text, context = self._config.text_config, self._context(load)
        positions = context + load.new_tokens
        kept = text.kept_bytes(context, load.new_tokens, itemsize)
        # PEFT keeps of what each adapted layer reads a float32 copy, another behind the dropout, and its mask;
        # LLM.int8() what every layer reads.
        kept = int(kept * (1 + 0.6 * lora + 0.3 * (quantize == "8bit")))
        if gradient_checkpointing:  # what goes into a block, and all of one block at a time
            kept = kept // text.num_blocks + text.num_blocks * positions * text.hidden_size * itemsize
        # As they are computed, in float32, as probabilities, as gradients.
        logits_bytes = min(load.rows * load.new_tokens, LOSS_CHUNK) * text.vocab_size * (2 * itemsize + 8)
        working = text.activation_bytes(load.rows, positions, itemsize)
        return int(_MEASURED * (load.rows * kept + working + logits_bytes))

    def _context(self, load: Load) -> int:
        """Returns C."""
        return self.media_tokens + load.prompt_tokens


def largest_fitting(counts: Sequence[int], free: int, num_bytes: Callable[[int], int]) -> int:
    """Returns the first count whose bytes fit; the last one where none does.

    >>> largest_fitting([8, 4, 2, 1], 50, lambda rows: 10 * rows), largest_fitting([8, 4], 5, lambda rows: 10 * rows)
    (4, 4)
    """
    return next((count for count in counts if num_bytes(count) <= free), counts[-1])


def place(
    identity: Identity, device: torch.device, *, itemsize: int, quantize: Quantization | None, may_spread: bool
) -> Placement:
    """Decides where a model lies, before a tensor of it is read.

    Args:
        identity: of its folder.
        device: where it computes.
        itemsize: bytes of a number in the dtype that it computes in.
        quantize: how its language model is quantized; that is never spread.
        may_spread: whether other GPUs and memory may help out where `device` is a GPU that is too small.

    Raises:
        ResourceError: it does not fit; says what would make it fit.
        CheckpointError: a file is missing or damaged.
    """
    folder, config = identity.folder, InstructBlipConfig.from_dict(identity.config)
    assert folder is not None  # a server is another backend's
    shapes, free = stored_shapes(folder), free_bytes(device)
    weights = count_weights(shapes, config.quantizable)
    working = working_bytes(InstructBlipNeeds(config), Load(), itemsize)
    is_too_large = free is not None and weights.num_bytes(itemsize) + working > free
    if is_too_large and may_spread and quantize is None and device.type == "cuda":
        memory = Budget(device=torch.device("cpu"), free=available_bytes() or 0)
        # Block by block as the model reads them: a file may have 10 before 2.
        shapes.sort(key=lambda pair: [part.zfill(5) if part.isdigit() else part for part in pair[0].split(".")])
        return distribute(
            shapes, weights, gpus(), memory, quantizable=config.quantizable, itemsize=itemsize, working=working
        )
    require_memory(weights, folder, itemsize=itemsize, quantize=quantize, available=free, working=working)
    return Placement(main=device)
