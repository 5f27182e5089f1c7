"""The settings of a training, with the paper's recipe as defaults (appendix C.3). No torch.

Names are transformers' TrainingArguments' where it has one. `ln_vision` is off: the paper trains the projection alone,
though its published code leaves that norm unfrozen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict, get_args

from vlinstruct.backends.registry import BACKBONES, UNKNOWN_BATCH_SIZE
from vlinstruct.errors import UsageError
from vlinstruct.settings import Quantization, check_options
from vlinstruct.training.data.conversations import Answers

_USUAL_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How the alignment layers are trained.

    Args:
        ema: whether CMAA's U_mm follows the queries.
        learned_cmaa: whether CMAA gets learned projections, which the paper does not have.
        ln_vision: whether the vision tower's last layer norm learns, as in the authors' code.
        lora: whether LoRA learns on the language model.
        lora_r: its rank.
        lora_alpha: its scale is alpha / rank.
        lora_dropout: of its input, while training.
        quantize: how the language model is stored while what learns is trained through it; None for as it computes.
        learning_rate: at its highest, after the warm-up.
        weight_decay: AdamW's, on matrices; biases have none (as in LAVIS).
        warmup_steps: from 1e-8 up to the learning rate, linearly; then down to 0 along a cosine.
        num_train_epochs: passes over the data.
        max_steps: ends the training earlier, and the cosine with it; None for all epochs.
        per_device_train_batch_size: samples that go through the model together, on each process; `finetune` chooses as
            many as fit on an accelerator where it is not told.
        gradient_accumulation_steps: such batches per update.
        gradient_checkpointing: compute the language model's activations again in the backward pass; less memory.
        auto_find_batch_size: halve what goes through together when memory ends; the updates stay the same.
        skip_nonfinite: updates that may be left out because their loss is not finite, before the training stops.
        skip_images: pictures that may be left out because they cannot be read; the order of the rest is as it was.
        image_size: side in pixels that the model reads pictures at; the model's own if None.
        max_pixels: larger pictures are refused before they are decoded.
        allow_truncated: read what is there of a picture that was cut off, in place of leaving it out.
        answers: whether the last answer of a conversation is learned or all of them.
        val_size: samples of the data that are validated on and not learned, or below 1 their share; None for none.
        seed: of the data's order, and of what is held out.
        save_steps: updates between checkpoints.
        eval_steps: updates between validations.
        early_stopping_patience: so many validations in a row that are not the best end the training; None for never.
    """

    ema: bool = True
    learned_cmaa: bool = False
    ln_vision: bool = False
    lora: bool = False
    lora_r: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    quantize: Quantization | None = None
    learning_rate: float = 1e-5
    weight_decay: float = 0.05
    warmup_steps: int = 1000
    num_train_epochs: int = 3
    max_steps: int | None = None
    per_device_train_batch_size: int = _USUAL_ROWS
    gradient_accumulation_steps: int = 4
    gradient_checkpointing: bool = False
    auto_find_batch_size: bool = False
    skip_nonfinite: int = 0
    skip_images: int = 0
    image_size: int | None = None
    max_pixels: int = 50_000_000
    allow_truncated: bool = False
    answers: Answers = "last"
    val_size: float | None = None
    seed: int = 0
    save_steps: int = 500
    eval_steps: int = 500
    early_stopping_patience: int | None = None

    def __post_init__(self) -> None:
        counts = {
            "num_train_epochs": self.num_train_epochs,
            "per_device_train_batch_size": self.per_device_train_batch_size,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "save_steps": self.save_steps,
            "eval_steps": self.eval_steps,
            "lora_r": self.lora_r,
            "lora_alpha": self.lora_alpha,
            "max_steps": 1 if self.max_steps is None else self.max_steps,
            "image_size": 1 if self.image_size is None else self.image_size,
            "early_stopping_patience": 1 if self.early_stopping_patience is None else self.early_stopping_patience,
        }
        most = 10**9
        problems = [f"{name} must be 1 to {most:,}, got {n}" for name, n in counts.items() if not 1 <= n <= most]
        val_size = 1.0 if self.val_size is None else self.val_size
        claims = [
            (
                0 < val_size < 1 or (1 <= val_size <= most and float(val_size).is_integer()),
                f"val_size must be a whole number of samples, or a share above 0 and below 1, got {self.val_size}",
            ),
            (0 < self.learning_rate < math.inf, f"learning_rate must be above 0 and finite, got {self.learning_rate}"),
            (0 <= self.weight_decay <= 1, f"weight_decay must be 0 to 1, got {self.weight_decay}"),
            (0 <= self.lora_dropout < 1, f"lora_dropout must be 0 to below 1, got {self.lora_dropout}"),
            (0 <= self.skip_nonfinite <= most, f"skip_nonfinite must be 0 or more, got {self.skip_nonfinite}"),
            (0 <= self.skip_images <= most, f"skip_images must be 0 or more, got {self.skip_images}"),
            (1 <= self.max_pixels <= 178_956_970, f"max_pixels must be 1 to 178,956,970, got {self.max_pixels}"),
            (self.ema or not self.learned_cmaa, "learned_cmaa needs ema"),
            (0 <= self.warmup_steps <= most, f"warmup_steps must be 0 or more, got {self.warmup_steps}"),
            (0 <= self.seed < 2**63, f"seed must be 0 to 2^63 - 1, got {self.seed}"),
            (self.quantize in (None, *get_args(Quantization)), f"quantize must be 8bit or 4bit, got {self.quantize!r}"),
            (self.answers in ("last", "all"), f"answers must be last or all, got {self.answers!r}"),
        ]
        problems += [problem for holds, problem in claims if not holds]
        if problems:
            raise UsageError("; ".join(problems))

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that learn whole, keys of `backends.instructblip.adapter.LAYERS`."""
        return ("projection",) + ("ln_vision",) * self.ln_vision + ("cmaa",) * self.learned_cmaa

    def batch_size(self, num_processes: int = 1) -> int:
        """Returns the samples of one update."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * num_processes


class TrainingOptions(TypedDict, total=False):
    """`TrainingSettings` as keywords of a call; a test says that the two agree."""

    ema: bool
    learned_cmaa: bool
    ln_vision: bool
    lora: bool
    lora_r: int
    lora_alpha: int
    lora_dropout: float
    quantize: Quantization | None
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    num_train_epochs: int
    max_steps: int | None
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    auto_find_batch_size: bool
    skip_nonfinite: int
    skip_images: int
    image_size: int | None
    max_pixels: int
    allow_truncated: bool
    answers: Answers
    seed: int
    save_steps: int
    eval_steps: int
    val_size: float | None
    early_stopping_patience: int | None


def batch_choices(values: Mapping[str, Any], backbone: str, num_processes: int = 1) -> list[int]:
    """Returns how many samples may go through the model together where nobody says it, the most first; else none.

    Powers of two that leave an update its batch: where no number of processes divides it, that of 8 samples together.

    Args:
        values: fields of TrainingSettings that a caller gives.
        backbone: as `with_recipe` takes it.
        num_processes: that train together.

    >>> batch_choices({}, "flant5-xl"), batch_choices({}, "flant5-xl", 3)
    ([128, 64, 32, 16, 8, 4, 2, 1], [8, 4])
    >>> batch_choices({"per_device_train_batch_size": 3}, "flant5-xl"), batch_choices({}, "mini")
    ([], [])
    """
    recipe, batch_size = _recipe(backbone)
    if {"per_device_train_batch_size", "gradient_accumulation_steps"} & {*values, *recipe}:
        return []
    share = max(1, batch_size // num_processes)
    counts = [2**exponent for exponent in reversed(range(share.bit_length()))]

    def together(rows: int) -> int:
        return max(1, batch_size // (rows * num_processes)) * rows

    return [rows for rows in counts if together(rows) == together(min(counts[0], _USUAL_ROWS))]


def _recipe(backbone: str) -> tuple[Mapping[str, Any], int]:
    entry = BACKBONES.get(backbone)
    return ({}, UNKNOWN_BATCH_SIZE) if entry is None else (entry.recipe, entry.batch_size)


def with_recipe(values: Mapping[str, Any], backbone: str, num_processes: int = 1) -> TrainingSettings:
    """Returns the settings that a caller gives, with a backbone's recipe for the rest.

    The batch of an update is the paper's, however many samples and processes it is made of, unless
    `gradient_accumulation_steps` is given.

    Args:
        values: fields of TrainingSettings.
        backbone: a name of the registry; others get Vicuna's recipe.
        num_processes: that train together.

    Raises:
        UsageError: a value is out of range, or its name is unknown.

    >>> [with_recipe({}, "flant5-xl", n).gradient_accumulation_steps for n in (1, 8, 1000)]
    [16, 2, 1]
    """
    check_options(values, [field.name for field in fields(TrainingSettings)])
    recipe, batch_size = _recipe(backbone)
    settings = TrainingSettings(**{**recipe, **values})
    steps = max(1, batch_size // (settings.per_device_train_batch_size * num_processes))
    return settings if "gradient_accumulation_steps" in values else replace(settings, gradient_accumulation_steps=steps)
