"""TrainingSettings' fields as options.

Every default is None, which says "not typed": what was not typed comes from the settings file, else from the backbone's
recipe. The defaults that `--help` shows are the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from vlinstruct.cli.options import QuantizeOption

if TYPE_CHECKING:
    from vlinstruct.media.images import ImageLimits


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The options, named as in transformers' TrainingArguments where it has one."""

    HEADING: ClassVar = "Training"

    ema: Annotated[bool | None, typer.Option("--ema/--no-ema", help="With CMAA, or the plain projection.")] = None
    learned_cmaa: Annotated[
        bool | None, typer.Option("--learned-cmaa/--no-learned-cmaa", help="CMAA with projections that learn.")
    ] = None
    ln_vision: Annotated[
        bool | None,
        typer.Option(
            "--ln-vision/--no-ln-vision", help="The vision tower's last norm learns, as in the authors' code."
        ),
    ] = None
    lora: Annotated[bool | None, typer.Option("--lora/--no-lora", help="LoRA on the language model (needs peft).")] = (
        None
    )
    lora_r: Annotated[int | None, typer.Option(help="Its rank.", show_default="8")] = None
    lora_alpha: Annotated[int | None, typer.Option(help="Its scale is alpha / rank.", show_default="16")] = None
    lora_dropout: Annotated[float | None, typer.Option(help="Of its input.", show_default="0.05")] = None
    quantize: QuantizeOption = None
    learning_rate: Annotated[float | None, typer.Option(help="After the warm-up.", show_default="1e-5")] = None
    weight_decay: Annotated[float | None, typer.Option(help="AdamW's, on matrices.", show_default="0.05")] = None
    warmup_steps: Annotated[int | None, typer.Option(help="Updates up to --learning-rate.", show_default="1000")] = None
    num_train_epochs: Annotated[int | None, typer.Option(help="Passes over the data.", show_default="3")] = None
    max_steps: Annotated[int | None, typer.Option(help="Updates at most.")] = None
    per_device_train_batch_size: Annotated[
        int | None,
        typer.Option(help="Samples that go through the model together.", show_default="8, on an accelerator what fits"),
    ] = None
    gradient_accumulation_steps: Annotated[
        int | None, typer.Option(help="Such batches per update.", show_default="as the paper's batch needs")
    ] = None
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option("--gradient-checkpointing/--no-gradient-checkpointing", help="Less memory, but slower."),
    ] = None
    auto_find_batch_size: Annotated[
        bool | None,
        typer.Option("--auto-find-batch-size/--no-auto-find-batch-size", help="Out of memory: go on with half of it."),
    ] = None
    skip_nonfinite: Annotated[
        int | None, typer.Option(help="Updates without a finite loss that may be left out.", show_default="0")
    ] = None
    skip_images: Annotated[
        int | None, typer.Option(help="Pictures that cannot be read that may be left out.", show_default="0")
    ] = None
    image_size: Annotated[
        int | None,
        typer.Option(help="Side in pixels that the model reads pictures at.", show_default="the model's own"),
    ] = None
    max_pixels: Annotated[
        int | None, typer.Option(help="Refuse larger pictures before they are decoded.", show_default="50000000")
    ] = None
    allow_truncated: Annotated[
        bool | None,
        typer.Option(
            "--allow-truncated/--no-allow-truncated",
            help="Read what is there of a picture that was cut off; the rest is grey.",
        ),
    ] = None
    answers: Annotated[
        Literal["last", "all"] | None,
        typer.Option(help="Which answers of a conversation are learned.", show_default="last"),
    ] = None
    val_size: Annotated[
        float | None,
        typer.Option(help="Samples of --data to hold out and validate on, by picture: 500, or a share, 0.05."),
    ] = None
    seed: Annotated[
        int | None, typer.Option(help="Of the data's order, the dropout and what is held out.", show_default="0")
    ] = None
    save_steps: Annotated[int | None, typer.Option(help="Updates between checkpoints.", show_default="500")] = None
    eval_steps: Annotated[int | None, typer.Option(help="Updates between validations.", show_default="500")] = None
    early_stopping_patience: Annotated[
        int | None, typer.Option(help="End after so many validations in a row that are not the best.")
    ] = None

    def image_limits(self) -> ImageLimits:
        """Returns how large a picture may be, and how whole it must be, where no settings file says otherwise."""
        from vlinstruct.media.images import ImageLimits

        usual = ImageLimits(allow_truncated=bool(self.allow_truncated))
        return usual if self.max_pixels is None else replace(usual, max_pixels=self.max_pixels)

    def typed(self) -> dict[str, Any]:
        """Returns the settings that were typed."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}
