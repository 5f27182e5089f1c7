"""A training that is asked for, who is told of it, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.training.data.conversations import TrainingSample
from vlinstruct.training.plan import Plan
from vlinstruct.training.recipe import FinetuneConfig


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Who is told how it goes, and who may stop it.

    Args:
        on_plan: called with the plan and the number of updates that are done already.
        on_feature: called for every row of frozen features that was computed.
        on_step: called with every update's line of the log.
        on_validation: called with every validation's line of the log.
        notify: is told what a user should know.
        should_stop: asked after every update.
    """

    on_plan: Callable[[Plan, int], None] = lambda plan, step: None
    on_feature: Callable[[], None] = lambda: None
    on_step: Callable[[Mapping[str, Any]], None] = lambda record: None
    on_validation: Callable[[Mapping[str, Any]], None] = lambda record: None
    notify: Callable[[str], None] = lambda notice: None
    should_stop: Callable[[], bool] = lambda: False


UNWATCHED = Progress()


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """How a training ended.

    Args:
        step: updates done.
        num_steps: updates of the whole training.
        best_step: after which update the validation was best; None without validations.
        best_loss: what it was, in nats per token.
    """

    step: int
    num_steps: int
    best_step: int | None = None
    best_loss: float | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the adapter is finished."""
        return self.step == self.num_steps


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training that was asked for.

    Args:
        model: the backbone, in eval mode.
        samples: what is learned.
        validation: what is predicted every `eval_steps`; may be empty.
        folder: the adapter's.
        config: the settings.
        backbone: what people call it.
        weights: the backbone's fingerprint.
        revision: the hub's commit that it is of; None of others.
        resume: go on from the newest checkpoint.
        override: settings that may be others than the checkpoint's, see `resuming.MAY_BE_OVERRIDDEN`.
        save_to: another folder, which a checkpoint goes to when this one cannot be written.
    """

    model: InstructBlipBackend
    samples: Sequence[TrainingSample]
    validation: Sequence[TrainingSample] = ()
    folder: Path
    config: FinetuneConfig
    backbone: str
    weights: str
    revision: str | None = None
    resume: bool = False
    override: Sequence[str] = ()
    save_to: Path | None = None

    @property
    def instructions(self) -> list[str]:
        """What the Q-Former reads, of all samples."""
        return [sample.instruction for sample in (*self.samples, *self.validation)]

    @property
    def sets(self) -> list[Sequence[TrainingSample]]:
        """What is learned, then what is validated on, if anything is."""
        return [self.samples, self.validation] if self.validation else [self.samples]
