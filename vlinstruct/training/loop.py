"""The training loop: updates from where it stands to the end, each a function of what the last one left.

What update `n` does depends on the weights, the optimizer's state and `n` alone: the data's order and the rate are
functions of `n`. So a run that goes on from a checkpoint ends with the same bits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import Parameter

from vlinstruct.data.conversations import TrainingSample
from vlinstruct.errors import DivergedError
from vlinstruct.model.vlm import VisionLanguageModel
from vlinstruct.training.features import Features
from vlinstruct.training.freeze import unfreeze_projection
from vlinstruct.training.log import Log
from vlinstruct.training.objective import answer_nll
from vlinstruct.training.order import epoch_batches, num_batches
from vlinstruct.training.recipe import FinetuneConfig, learning_rate_at
from vlinstruct.training.state import TrainingState, optimizer_tensors, restore_optimizer, save_state

_BETAS = (0.9, 0.999)
_SHOWN_IDS = 5


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is learned, and how.

    Args:
        model: the vision-language model.
        samples: N.
        features: what the projection reads for each of them.
        config: the settings.
        checkpoints: where checkpoints go.
        facts: what is written into them.
    """

    model: VisionLanguageModel
    samples: Sequence[TrainingSample]
    features: Features
    config: FinetuneConfig
    checkpoints: Path
    facts: Mapping[str, Any]

    @property
    def num_steps(self) -> int:
        """Updates of the whole training."""
        return num_steps(len(self.samples), self.config)


def num_steps(num_samples: int, config: FinetuneConfig) -> int:
    """Returns how many updates a training has."""
    whole = config.num_train_epochs * num_batches(num_samples, config.batch_size)
    return whole if config.max_steps is None else min(whole, config.max_steps)


class Loop:
    """A training.

    Args:
        task: what is learned.
        state: where an earlier run stopped; None starts anew.
    """

    def __init__(self, task: Task, state: TrainingState | None = None) -> None:
        self.task = task
        self.learning = unfreeze_projection(task.model.model)
        self.optimizer = _optimizer(self.learning, task.config)
        self.step = 0
        tokenizer = task.model.tokenizer
        self.target_lengths = [len(tokenizer.target_ids(sample.answer)) for sample in task.samples]
        prompts = (len(tokenizer.prompt_ids(sample.prompt)) for sample in task.samples)
        self.lengths = [sum(pair) for pair in zip(prompts, self.target_lengths, strict=True)]
        self.batches = functools.lru_cache(maxsize=1)(self._batches)
        if state is not None:
            self._restore(state)

    def run(
        self,
        log: Log,
        *,
        on_step: Callable[[Mapping[str, Any]], None] = lambda record: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Trains to the end, or to the checkpoint after the update in which it was asked to stop.

        Raises:
            DivergedError: a loss or a gradient is not finite; nothing was updated with it.
            ResourceError: a checkpoint cannot be written.
        """
        while self.step < self.task.num_steps:
            record = self._update()
            log.write(record)
            self.step += 1
            on_step(record)
            is_last = should_stop() or self.step == self.task.num_steps
            if is_last or self.step % self.task.config.save_steps == 0:
                log.sync()
                self.save()
            if is_last:
                return

    def save(self) -> None:
        """Writes a checkpoint of where it stands."""
        optimizer = optimizer_tensors(self.optimizer, self.learning)
        state = TrainingState(step=self.step, learning=self.learning, optimizer=optimizer, facts=self.task.facts)
        save_state(self.task.checkpoints, state)

    def _restore(self, state: TrainingState) -> None:
        for name, parameter in self.learning.items():
            parameter.data.copy_(state.learning[name])
        restore_optimizer(self.optimizer, self.learning, state.optimizer)
        self.step = state.step

    def _batches(self, epoch: int) -> list[list[int]]:
        config = self.task.config
        return epoch_batches(self.lengths, config.batch_size, seed=config.seed, epoch=epoch)

    def _update(self) -> dict[str, Any]:
        """Makes one update and returns its line of the log."""
        config = self.task.config
        epoch, place = divmod(self.step, num_batches(len(self.task.samples), config.batch_size))
        batch = self.batches(epoch)[place]
        num_tokens = sum(self.target_lengths[index] for index in batch)
        rows = config.per_device_train_batch_size
        parts = [batch[start : start + rows] for start in range(0, len(batch), rows)]
        loss = sum(self._gradients(part, num_tokens) for part in parts)
        norm = float(torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in self.learning.values()])))  # type: ignore[union-attr]
        self._require_finite(norm, batch, "gradient")
        rate = learning_rate_at(self.step, self.task.num_steps, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {
            "step": self.step + 1,
            "epoch": epoch,
            "loss": loss,
            "learning_rate": rate,
            "grad_norm": norm,
            "samples": len(batch),
            "target_tokens": num_tokens,
        }

    def _gradients(self, part: Sequence[int], num_tokens: int) -> float:
        """Adds a part's gradients, and returns its share of the batch's mean loss per token, in nats."""
        samples = [self.task.samples[index] for index in part]
        loss = answer_nll(self.task.model, self.task.features.read(part), samples) / num_tokens
        value = loss.item()
        self._require_finite(value, part, "loss")
        loss.backward()  # type: ignore[no-untyped-call]
        return value

    def _require_finite(self, value: float, indices: Sequence[int], what: str) -> None:
        if not math.isfinite(value):
            ids = ", ".join(self.task.samples[index].id for index in indices[:_SHOWN_IDS])
            more = f" and {len(indices) - _SHOWN_IDS} more" if len(indices) > _SHOWN_IDS else ""
            raise DivergedError(
                f"the {what} of update {self.step + 1} is not finite (samples {ids}{more}). Nothing was updated with "
                "it. Check these samples, or use a lower --learning-rate or --dtype float32."
            )


def _optimizer(learning: Mapping[str, Parameter], config: FinetuneConfig) -> torch.optim.AdamW:
    matrices = [parameter for parameter in learning.values() if parameter.ndim > 1]
    biases = [parameter for parameter in learning.values() if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=_BETAS, foreach=False)
