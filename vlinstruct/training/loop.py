"""The training loop: updates from where it stands to the end, each a function of what the last one left.

What update `n` does depends on the weights, the optimizer's state and `n` alone: the data's order, the rate and the
seed of the random numbers are functions of `n`. So a run that goes on from a checkpoint ends with the same bits.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.errors import DivergedError, ResourceError, is_out_of_memory
from vlinstruct.training.devices import Devices
from vlinstruct.training.examples import Examples
from vlinstruct.training.log import Log
from vlinstruct.training.order import epoch_batches, micro_batches, num_batches
from vlinstruct.training.recipe import FinetuneConfig, learning_rate_at
from vlinstruct.training.state import Standing, TrainingState, optimizer_tensors, restore_optimizer, save_state
from vlinstruct.training.validation import validation_loss

_BETAS = (0.9, 0.999)
_SHOWN_IDS = 5


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is learned, and how.

    Args:
        model: the vision-language model.
        learning: what learns of it, by name.
        examples: what is learned.
        validation: what is predicted every `eval_steps`; None for nothing.
        config: the settings.
        devices: the processes.
        checkpoints: where checkpoints go.
        facts: what is written into them.
        save_to: where a checkpoint goes that cannot be written there; None for nowhere.
    """

    model: InstructBlipBackend
    learning: Mapping[str, Parameter]
    examples: Examples
    validation: Examples | None = None
    config: FinetuneConfig
    devices: Devices
    checkpoints: Path
    facts: Mapping[str, Any]
    save_to: Path | None = None

    @property
    def batch_size(self) -> int:
        """Samples of one update."""
        return self.config.batch_size(self.devices.num_processes)

    @property
    def num_steps(self) -> int:
        """Updates of the whole training."""
        return num_steps(len(self.examples), self.config, self.devices.num_processes)


def num_steps(num_samples: int, config: FinetuneConfig, num_processes: int = 1) -> int:
    """Returns how many updates a training has."""
    whole = config.num_train_epochs * num_batches(num_samples, config.batch_size(num_processes))
    return whole if config.max_steps is None else min(whole, config.max_steps)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who is told what the loop does, and who may stop it.

    Args:
        on_step: called with every update's line of the log.
        on_validation: called with every validation's line of the log.
        on_best: called when a validation was the best so far.
        notify: is told what a user should know.
        should_stop: asked after every update.
    """

    on_step: Callable[[Mapping[str, Any]], None] = lambda record: None
    on_validation: Callable[[Mapping[str, Any]], None] = lambda record: None
    on_best: Callable[[], None] = lambda: None
    notify: Callable[[str], None] = lambda notice: None
    should_stop: Callable[[], bool] = lambda: False


class Loop:
    """A training.

    Args:
        task: what is learned.
        watch: who is told.
        state: where an earlier run stopped; None starts anew.
    """

    def __init__(self, task: Task, watch: Watch, state: TrainingState | None = None) -> None:
        self.task = task
        self.watch = watch
        self.optimizer = _optimizer(task.learning, task.config)
        self.step = 0
        self.standing = Standing(rows=task.config.per_device_train_batch_size)
        self.lengths = task.examples.lengths
        self.batches = functools.lru_cache(maxsize=1)(self._batches)
        self.is_stopped = False
        if state is not None:
            self._restore(state)

    def run(self, log: Log) -> None:
        """Trains to the end, or to the checkpoint after the update in which it was asked to stop.

        Raises:
            DivergedError: a loss or a gradient is not finite; nothing was updated with it.
            ResourceError: a checkpoint cannot be written, or memory ended.
        """
        self.task.model.network.language_model.train()  # LoRA has a dropout, nothing else has
        self._validate_if_due(log)
        while self.step < self.task.num_steps and not self.is_stopped:
            self.advance(log)
            self._validate_if_due(log)
            if self.is_stopped or self.step == self.task.num_steps or self.step % self.task.config.save_steps == 0:
                self._save(log)
        self.task.model.network.language_model.eval()

    def advance(self, log: Log) -> None:
        """Makes one update and writes its line.

        Raises:
            DivergedError: a loss or a gradient is not finite; nothing was updated with it.
            ResourceError: memory ended.
        """
        record = self._update()
        log.write(record)
        self.step += 1
        self.watch.on_step(record)

    def _save(self, log: Log) -> None:
        if self.task.devices.is_main:
            log.sync()
            optimizer = optimizer_tensors(self.optimizer, self.task.learning)
            state = TrainingState(
                step=self.step,
                learning=self.task.learning,
                optimizer=optimizer,
                facts=self.task.facts,
                standing=self.standing,
            )
            try:
                save_state(self.task.checkpoints, state)
            except ResourceError as error:
                self._rescue(state, error)

    def _rescue(self, state: TrainingState, error: ResourceError) -> None:
        """Saves elsewhere, where that was asked for, and ends the training all the same."""
        save_to = self.task.save_to
        if save_to is None:
            raise error
        (save_to / "checkpoints").parent.mkdir(parents=True, exist_ok=True)
        save_state(save_to / "checkpoints", state)
        raise ResourceError(
            error.problem, advice=f"Update {state.step} is saved in {save_to}: --resume there (-o)."
        ) from error

    def _restore(self, state: TrainingState) -> None:
        for name, parameter in self.task.learning.items():
            parameter.data.copy_(state.learning[name])
        restore_optimizer(self.optimizer, self.task.learning, state.optimizer)
        self.step, self.standing = state.step, state.standing

    def _batches(self, epoch: int) -> list[list[int]]:
        whole = epoch_batches(self.lengths, self.task.batch_size, seed=self.task.config.seed, epoch=epoch)
        return [self.task.examples.readable(batch) for batch in whole]

    def _update(self) -> dict[str, Any]:
        """Makes one update and returns its line of the log."""
        config = self.task.config
        epoch, place = divmod(self.step, num_batches(len(self.task.examples), self.task.batch_size))
        batch = self.batches(epoch)[place]
        rate = learning_rate_at(self.step, self.task.num_steps, config)
        record = {"step": self.step + 1, "epoch": epoch, "loss": None, "learning_rate": rate, "grad_norm": None}
        if not batch:  # none of its pictures can be read
            return {**record, "samples": 0, "target_tokens": 0, "padding": 0.0}
        parts, losses, norm = self._gradients_in_memory(batch)
        if self._is_finite(parts, losses, norm):
            record |= {"loss": math.fsum(losses), "grad_norm": norm}
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {
            **record,
            "samples": len(batch),
            "target_tokens": self.task.examples.num_target_tokens(batch),
            "padding": self._padding(parts),
        }

    def _gradients_in_memory(self, batch: Sequence[int]) -> tuple[list[list[list[int]]], list[float], float]:
        """Does what `_gradients` does; where memory ends, with half as many samples at once, if that is asked for."""
        while True:
            parts = micro_batches(batch, self.standing.rows, self.task.devices.num_processes)
            try:
                return parts, *self._gradients(parts, self.task.examples.num_target_tokens(batch))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self.optimizer.zero_grad(set_to_none=True)
                self._halve_rows(batch, error)

    def _halve_rows(self, batch: Sequence[int], error: Exception) -> None:
        rows, examples = self.standing.rows, self.task.examples
        longest = max(batch, key=lambda index: sum(self.lengths[index]))
        name, length = examples.ids[longest], sum(self.lengths[longest])
        what = f"out of memory in update {self.step + 1} with {rows} samples at once"
        if rows == 1 or not self.task.config.auto_find_batch_size or self.task.devices.num_processes > 1:
            raise ResourceError(
                f"{what}; the longest is {name} with {length} tokens",
                advice="Try --resume with "
                "--gradient-checkpointing, --auto-find-batch-size or a smaller --per-device-train-batch-size.",
            ) from error
        self.standing = self.standing.with_rows(rows // 2)
        self.watch.notify(f"{what}: from here on {rows // 2}, more of them per update.")

    def _gradients(self, parts: Sequence[Sequence[Sequence[int]]], num_tokens: int) -> tuple[list[float], float]:
        """Computes an update's gradients, summed over the processes.

        Returns:
            Every part's share of the mean loss per token, in nats, and the gradient's norm.
        """
        devices, device = self.task.devices, self.task.model.device
        losses = torch.zeros(len(parts), devices.num_processes, device=device)
        for number, shares in enumerate(parts):
            torch.manual_seed(self._random_seed(number))
            mine = shares[devices.rank]
            # A process without a sample takes part all the same: sharded weights need every one.
            loss = self.task.examples.nll(mine or shares[0]) / num_tokens
            (loss * (1.0 if mine else 0.0)).backward()  # type: ignore[no-untyped-call]
            if mine:
                losses[number, devices.rank] = loss.detach()
        gradients = [_gradient(parameter) for parameter in self.task.learning.values()]
        asked = torch.tensor([float(self.watch.should_stop())], device=device)
        told = devices.sum(torch.cat([asked, losses.flatten(), *(gradient.flatten() for gradient in gradients)]))
        self.is_stopped = bool(told[0] > 0)
        found, summed = told[1 : 1 + losses.numel()], told[1 + losses.numel() :]
        for gradient, value in zip(gradients, torch.split(summed, [one.numel() for one in gradients]), strict=True):
            gradient.copy_(value.view_as(gradient))
        return found.tolist(), float(torch.linalg.vector_norm(summed))

    def _random_seed(self, part: int) -> int:
        place = f"{self.task.config.seed}/{self.step}/{self.task.devices.rank}/{part}"
        return random.Random(place).getrandbits(63)

    def _padding(self, parts: Sequence[Sequence[Sequence[int]]]) -> float:
        """Returns the share of the language model's positions that were padding."""
        counts = [self.task.examples.num_positions(mine) for shares in parts for mine in shares]
        taken = sum(positions for _, positions in counts)
        return round(1 - sum(filled for filled, _ in counts) / taken, 4)

    def _is_finite(self, parts: Sequence[Sequence[Sequence[int]]], losses: Sequence[float], norm: float) -> bool:
        """Returns whether an update may be made; raises where too many may not."""
        flat = [share for shares in parts for share in shares]
        poisoned = [mine for mine, loss in zip(flat, losses, strict=True) if not math.isfinite(loss)]
        if not poisoned and math.isfinite(norm):
            return True
        indices = [index for mine in poisoned or flat for index in mine]
        ids = ", ".join(self.task.examples.ids[index] for index in indices[:_SHOWN_IDS])
        more = f" and {len(indices) - _SHOWN_IDS} more" if len(indices) > _SHOWN_IDS else ""
        what = f"the {'loss' if poisoned else 'gradient'} of update {self.step + 1} is not finite (samples {ids}{more})"
        if self.standing.skipped >= self.task.config.skip_nonfinite:
            advice = "Check these samples, or use a lower --learning-rate or --dtype float32."
            raise DivergedError(f"{what}. Nothing was updated with it", advice=advice)
        self.standing = self.standing.with_one_more_skipped()
        self.watch.notify(f"{what}: it was left out.")
        return False

    def _validate_if_due(self, log: Log) -> None:
        """Validates unless it is not time, was done, or somebody is waiting for the end."""
        task, step = self.task, self.step
        is_time = step > 0 and (step % task.config.eval_steps == 0 or step == task.num_steps)
        if task.validation is None or self.is_stopped or not is_time or self.standing.validated == step:
            return
        try:
            loss = validation_loss(
                task.validation, task.devices, batch_size=self.standing.rows, should_stop=self.watch.should_stop
            )
        except Exception:
            self._save(log)
            raise
        if loss is None:
            self.is_stopped = True
            return
        self._judge(loss, log)

    def _judge(self, loss: float, log: Log) -> None:
        if not math.isfinite(loss):
            self._save(log)
            raise DivergedError(
                f"the validation loss after update {self.step} is not finite", advice="It is saved; check --eval-data."
            )
        best = self.standing.best_loss
        is_best = best is None or loss < best
        if is_best:
            self.watch.on_best()
        self.standing = self.standing.with_validation(self.step, loss)
        record = {"step": self.step, "eval_loss": loss, "is_best": is_best}
        log.write(record)
        self.watch.on_validation(record)


def _gradient(parameter: Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _optimizer(learning: Mapping[str, Parameter], config: FinetuneConfig) -> torch.optim.AdamW:
    matrices = [parameter for parameter in learning.values() if parameter.ndim > 1]
    vectors = [parameter for parameter in learning.values() if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=_BETAS, foreach=False)
