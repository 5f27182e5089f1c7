"""The compute of a training, worked out from the configuration: the floating-point operations of matrix products.

A product of (m, k) and (k, n) counts 2mnk. Backward through frozen weights costs one more product per weight, for the
gradients of its input, and two per attention product, both of whose sides have gradients. What no gradient flows
through is left out: the vision tower, the Q-Former, and what T5's decoder does before it first reads the encoder.
Kernels that compute something again (checkpointing, fused attention) do more than is counted.

Legend: P image positions, Q queries, T instruction tokens, C context positions, S target positions, N positions of a
decoder-only sequence, D a part's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from statistics import fmean

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig, QFormerConfig, VisionConfig

_CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Operations of one batch or one sample, by part.

    Args:
        vision: the vision tower, forward.
        qformer: the Q-Former, forward.
        forward: projection and language model.
        backward: the same backward, with the gradients of the projection's weights.
    """

    vision: float = 0.0
    qformer: float = 0.0
    forward: float = 0.0
    backward: float = 0.0

    @property
    def total(self) -> float:
        """All parts."""
        return self.vision + self.qformer + self.forward + self.backward

    def __add__(self, other: Flops) -> Flops:
        return Flops(**{part: value + getattr(other, part) for part, value in asdict(self).items()})

    def __mul__(self, factor: float) -> Flops:
        return Flops(**{part: value * factor for part, value in asdict(self).items()})


def mean_flops(samples: Sequence[Flops]) -> Flops:
    """Returns the mean of every part."""
    return Flops(**{field.name: fmean(getattr(sample, field.name) for sample in samples) for field in fields(Flops)})


@dataclass(frozen=True, kw_only=True)
class PaddedBatch:
    """The lengths that one row of a batch is padded to.

    Args:
        prefix: projected positions in front of the prompt, Q or 2Q.
        prompt: the longest prompt's tokens.
        target: the longest answer's.
        mean_target: the mean answer's.
        both: the most that prompt and answer of one sample have together.
    """

    prefix: int
    prompt: int
    target: int
    mean_target: float
    both: int


def our_row(config: InstructBlipConfig, batch: PaddedBatch) -> Flops:
    """Returns a row's operations in `training.examples.answer_nll`; prompts and answers are padded on their own."""
    text = config.text_config
    forward, backward = text.flops(batch.prefix + batch.prompt, batch.target)
    left_out = _product(batch.target - batch.mean_target, text.hidden_size, text.vocab_size)  # padding has no logits
    return _projection(config, batch.prefix) + Flops(forward=forward - left_out, backward=backward - left_out)


def plain_row(config: InstructBlipConfig, batch: PaddedBatch) -> Flops:
    """Returns a row's operations in transformers' language model; a decoder-only one has logits at every position."""
    # `both` is less than prompt + target: a decoder-only row has its answer behind its own prompt, and is padded once.
    text, whole = config.text_config, batch.prefix + batch.both
    lengths = (batch.prefix + batch.prompt, batch.target) if text.is_encoder_decoder else (1, whole)
    forward, backward = text.flops(*lengths)
    return _projection(config, batch.prefix) + Flops(forward=forward, backward=backward)


def frozen_row(config: InstructBlipConfig, num_tokens: int) -> Flops:
    """Returns the operations of the vision tower and the Q-Former for one picture and T instruction tokens."""
    tower, qformer = config.vision_config, config.qformer_config
    patches = _product(tower.num_positions - 1, _CHANNELS * tower.patch_size**2, tower.hidden_size)
    vision = patches + tower.num_hidden_layers * _layer(tower, tower.num_positions)
    # Queries and instruction tokens go through every layer together; in every so-many-th the queries read the image.
    queries, width = config.num_query_tokens, qformer.hidden_size
    keys_values = _product(tower.num_positions, tower.hidden_size, 2 * width)
    reading = _product(queries, width, 2 * width) + keys_values + 2 * _product(queries, width, tower.num_positions)
    num_readers = -(-qformer.num_hidden_layers // qformer.cross_attention_frequency)
    layers = qformer.num_hidden_layers * _layer(qformer, queries + num_tokens)
    return Flops(vision=vision, qformer=layers + num_readers * reading)


def _product(rows: float, inner: float, columns: float) -> float:
    return 2.0 * rows * inner * columns


def _layer(config: VisionConfig | QFormerConfig, positions: int) -> float:
    """Returns the operations of self-attention and feed-forward in one layer."""
    width = config.hidden_size
    weights = _product(positions, width, 4 * width + 2 * config.intermediate_size)  # queries, keys, values, output; MLP
    return weights + 2 * _product(positions, width, positions)  # scores, and the weighted sum of the values


def _projection(config: InstructBlipConfig, positions: int) -> Flops:
    # Its weights have a gradient, its input has none: backward costs one product, as forward does.
    product = _product(positions, config.qformer_config.hidden_size, config.text_config.hidden_size)
    return Flops(forward=product, backward=product)
