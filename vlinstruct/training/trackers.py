"""The trackers that accelerate can send curves to. No torch, since the command line lists them."""

from __future__ import annotations

from typing import Literal, get_args

Tracker = Literal["aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb"]
TRACKERS: tuple[str, ...] = get_args(Tracker)
