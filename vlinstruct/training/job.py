"""A training as values: its task (Job), what that takes (Plan), whom it tells (Progress) and its end (Finetuned)."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.nn import Parameter

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.memory import InstructBlipNeeds, largest_fitting
from vlinstruct.backends.memory import Load
from vlinstruct.settings import Quantization
from vlinstruct.training.data.conversations import TrainingSample
from vlinstruct.training.features import FeatureRows, row_bytes
from vlinstruct.training.schedule import Mixture, highest_learning_rate, num_steps
from vlinstruct.training.settings import TrainingSettings

_IN_CHECKPOINT = 3  # the weights and AdamW's two moments
_IN_MEMORY = 4  # and the gradients
_FLOAT32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training that is asked for, its backbone and its samples loaded.

    Args:
        backend: the backbone, in eval mode.
        samples: what is learned.
        validation: what is predicted every `eval_steps`; may be empty.
        folder: the adapter's.
        settings: how it is trained.
        backbone: what people call it.
        sources: what the samples were read from, as messages name it: the data, then what is validated on.
        weights: the backbone's fingerprint.
        revision: the hub's commit that it is of; None of others.
        mixture: the sets that the samples are of; None where they are one set, learned once in an epoch.
        source: what it was asked with beside the settings, by the names of `experiment.Experiment`.
        resume: go on from the newest checkpoint.
        overwrite: replace the run that the folder holds, once this one has begun well.
        override: settings that may be others than the checkpoint's, see `resuming.MAY_BE_OVERRIDDEN`.
        save_to: another folder, which a checkpoint goes to when this one cannot be written.
    """

    backend: InstructBlipBackend
    samples: Sequence[TrainingSample]
    validation: Sequence[TrainingSample] = ()
    folder: Path
    settings: TrainingSettings
    backbone: str
    sources: Sequence[str] = ()
    weights: str
    revision: str | None = None
    mixture: Mixture | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    overwrite: bool = False
    override: Sequence[str] = ()
    save_to: Path | None = None

    @property
    def instructions(self) -> list[str]:
        """What the Q-Former reads, of all samples."""
        return [sample.instruction for sample in (*self.samples, *self.validation)]

    @property
    def epoch(self) -> Mixture:
        """Which samples an epoch has."""
        return self.mixture or Mixture(sizes=(len(self.samples),), weights=(1.0,))

    @property
    def sets(self) -> list[Sequence[TrainingSample]]:
        """What is learned, then what is validated on, if anything is."""
        return [self.samples, self.validation] if self.validation else [self.samples]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a training will do and take.

    Args:
        learning: what learns, by name with its count.
        num_samples: N.
        num_steps: updates.
        batch_size: samples of one update, over all processes.
        num_processes: how many.
        features_bytes: of the caches of frozen features.
        checkpoint_bytes: of one checkpoint.
        weights_bytes: of the frozen weights in memory, on each process unless they are sharded.
        learning_bytes: of what learns, with gradients and optimizer.
        num_validation: samples that are validated on.
        num_rows: samples that go through the model together, on each process.
        warmup_steps: updates of the warm-up.
        learning_rate: what the warm-up leads to.
        highest_learning_rate: of any update.
        max_steps: updates that were asked for at most; None for no such limit.
        num_epoch_samples: samples of an epoch; others than all where sets have weights.
        quantize: how the language model is stored; None for as it computes.
    """

    learning: Mapping[str, int]
    num_samples: int
    num_steps: int
    batch_size: int
    num_processes: int
    features_bytes: int
    checkpoint_bytes: int
    weights_bytes: int
    learning_bytes: int
    num_validation: int
    num_rows: int
    warmup_steps: int
    learning_rate: float
    highest_learning_rate: float
    max_steps: int | None = None
    num_epoch_samples: int
    quantize: Quantization | None = None

    @property
    def notices(self) -> tuple[str, ...]:
        """What is probably not meant: a training that ends within its warm-up, or before `max_steps`."""
        notices = []
        if self.warmup_steps >= self.num_steps:
            reached = f"the learning rate reaches {self.highest_learning_rate:.2g} of {self.learning_rate:.2g}"
            notices.append(
                f"{reached}: the warm-up is {self.warmup_steps:,} of {self.num_steps:,} updates (--warmup-steps)"
            )
        if self.max_steps is not None and self.max_steps > self.num_steps:
            end = f"--num-train-epochs ends the training after {self.num_steps:,} updates"
            notices.append(f"{end}, before --max-steps {self.max_steps:,}")
        return tuple(notices)

    @property
    def disk_bytes(self) -> int:
        """What has to be free: the caches, two checkpoints and one being written, two adapters."""
        return self.features_bytes + 3 * self.checkpoint_bytes + 2 * self.checkpoint_bytes // _IN_CHECKPOINT


def plan_of(
    job: Job,
    learning: Mapping[str, Parameter],
    rows: Sequence[FeatureRows],
    shape: tuple[int, int],
    num_processes: int,
) -> Plan:
    """Works out a training.

    Args:
        job: what is asked for.
        learning: what learns of its backend, by name.
        rows: of the training's and the validation's features.
        shape: of a row.
        num_processes: that train together.
    """
    num_epoch_samples = sum(job.epoch.counts)
    steps = num_steps(num_epoch_samples, job.settings, num_processes)
    num_samples, count = len(job.samples), sum(parameter.numel() for parameter in learning.values())
    weights, itemsize = InstructBlipNeeds(job.backend.network.config).weights, job.backend.dtype.itemsize
    # CMAA's and LoRA's come on top of the backbone's.
    thawed = sum(
        parameter.numel() for name, parameter in learning.items() if not name.startswith(("cmaa.", "language_model."))
    )
    return Plan(
        learning={name: parameter.numel() for name, parameter in learning.items()},
        num_samples=num_samples,
        num_steps=steps,
        batch_size=job.settings.batch_size(num_processes),
        num_processes=num_processes,
        features_bytes=sum(len(of_set.firsts) for of_set in rows) * row_bytes(shape, job.backend.dtype),
        checkpoint_bytes=_IN_CHECKPOINT * _FLOAT32_BYTES * count,
        weights_bytes=weights.num_bytes(itemsize, job.settings.quantize) - thawed * itemsize,
        quantize=job.settings.quantize,
        learning_bytes=_IN_MEMORY * _FLOAT32_BYTES * count,
        num_validation=len(job.validation),
        num_rows=job.settings.per_device_train_batch_size,
        warmup_steps=job.settings.warmup_steps,
        learning_rate=job.settings.learning_rate,
        highest_learning_rate=highest_learning_rate(steps, job.settings),
        max_steps=job.settings.max_steps,
        num_epoch_samples=num_epoch_samples,
    )


@dataclass(frozen=True, kw_only=True)
class FittingBatch:
    """So many samples as fit into memory together.

    Args:
        rows: how many.
        num_bytes: what the longest of them take with their gradients, estimated; beside the weights.
    """

    rows: int
    num_bytes: int


def fitting_batch(
    backend: InstructBlipBackend,
    samples: Sequence[TrainingSample],
    choices: Sequence[int],
    free: int,
    settings: TrainingSettings,
) -> FittingBatch:
    """Chooses how many samples go through the model together.

    Args:
        backend: what is trained.
        samples: what is learned; the longest decide.
        choices: how many there may be, the most first.
        free: bytes beside the weights.
        settings: how it is trained.
    """
    # By their letters: to tokenise all only for this would take as long as to tokenise them for the training.
    longest = heapq.nlargest(choices[0], samples, key=lambda sample: len(sample.prompt) + len(sample.answer))
    if backend.tokenizer is None:  # planned from shapes; three letters are less than most tokens have
        lengths = [(len(sample.prompt) // 3 + 1, len(sample.answer) // 3 + 1) for sample in longest]
    else:
        lengths = [
            (len(backend.prompt_ids(sample.prompt)), len(backend.tokenizer.target_ids(sample.answer)))
            for sample in longest
        ]
    needs = InstructBlipNeeds(backend.network.config)

    def num_bytes(rows: int) -> int:
        prompt, target = (max(column) for column in zip(*lengths[:rows], strict=True))
        load = Load(rows=rows, prompt_tokens=prompt, new_tokens=target)
        return needs.training_bytes(
            load,
            backend.dtype.itemsize,
            gradient_checkpointing=settings.gradient_checkpointing,
            lora=settings.lora,
            quantize=settings.quantize,
        )

    rows = largest_fitting(choices, free, num_bytes)
    return FittingBatch(rows=rows, num_bytes=num_bytes(rows))


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a training calls as it goes on, and what may stop it; each does nothing unless it is set.

    Args:
        on_loaded: called when the backbone and the samples are loaded; from here on `should_stop` is asked.
        on_plan: called with the plan and the number of updates that are done already.
        on_features: called with the number of pictures of a set whose frozen features this process has to compute.
        on_feature: called for every one of them.
        on_step: called with every update's line of the log.
        on_validation: called with every validation's line of the log.
        notify: is told what a user should know.
        should_stop: asked after every update; a training that is stopped saves first.
    """

    on_loaded: Callable[[], None] = lambda: None
    on_plan: Callable[[Plan, int], None] = lambda plan, step: None
    on_features: Callable[[int], None] = lambda num_pictures: None
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
        folder: the adapter's.
        backbone: what it was trained on, as people call it.
        step: updates done.
        num_steps: updates of the whole training.
        losses: of every update, in nats per answer token; None of one that was left out.
        best_step: after which update the validation was best; None without validations.
        best_loss: what it was, in nats per answer token.
        is_early: whether it ended because its validations no longer became better.
        validations: the loss after every update that was validated, in nats per answer token.
        hub_url: where it was uploaded to; None where it was not.
        quantize: how the language model was stored; None for as it computes.
    """

    folder: Path
    backbone: str
    step: int
    num_steps: int
    losses: tuple[float | None, ...] = field(default=(), repr=False)
    best_step: int | None = None
    best_loss: float | None = None
    is_early: bool = False
    validations: Mapping[int, float] = field(default_factory=dict)
    hub_url: str | None = None
    quantize: Quantization | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the adapter is finished."""
        return self.is_early or self.step == self.num_steps
