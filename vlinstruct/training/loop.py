"""The training loop: updates from where it stands to the end, each a function of what the last one left.

What update `n` does depends on the weights, the optimizer's state and `n` alone: the data's order, the rate and the
seed of the random numbers are functions of `n`. So a run that goes on from a checkpoint ends with the same bits, as 120
SIGKILLs and 797 refused or cut file operations showed. accelerate's way, to save the samplers' and generators' states
and to skip batches, is not exact: of 25 remaining batches none was equal, and with its seedable sampler the batches
were, but not the weights.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from vlinstruct.errors import DivergedError, ResourceError, is_out_of_memory
from vlinstruct.training.devices import Devices
from vlinstruct.training.examples import Examples, validation_loss
from vlinstruct.training.job import UNWATCHED, Job, Progress
from vlinstruct.training.schedule import epoch_batches, learning_rate_at, micro_batches, num_batches, num_steps
from vlinstruct.training.settings import TrainingSettings
from vlinstruct.training.state import Log, Standing, TrainingState, optimizer_tensors, restore_optimizer, save_state

_BETAS = (0.9, 0.999)  # PyTorch's defaults
_SHOWN_IDS = 5


class Loop:
    """A training.

    Args:
        job: what is asked for; gives the backend, the settings and where checkpoints go.
        learning: what learns of the backend, by name.
        examples: what is learned.
        validation: what is predicted every `eval_steps`; None for nothing.
        devices: the processes.
        facts: what is written into the checkpoints, see `resuming.facts_of`.
        progress: who is told, and may stop it.
        on_best: called when a validation was the best so far.
        state: where an earlier run stopped; None starts anew.
    """

    def __init__(
        self,
        job: Job,
        *,
        learning: Mapping[str, Parameter],
        examples: Examples,
        validation: Examples | None = None,
        devices: Devices,
        facts: Mapping[str, Any],
        progress: Progress = UNWATCHED,
        on_best: Callable[[], None] = lambda: None,
        state: TrainingState | None = None,
    ) -> None:
        self.backend, self.settings = job.backend, job.settings
        self.checkpoints, self.save_to = job.folder / "checkpoints", job.save_to
        self.learning = learning
        self.examples, self.validation = examples, validation
        self.devices = devices
        self.facts = facts
        self.progress, self.on_best = progress, on_best
        self.batch_size = job.settings.batch_size(devices.num_processes)
        self.mixture = job.epoch
        self.num_epoch_samples = sum(job.epoch.counts)
        self.num_steps = num_steps(self.num_epoch_samples, job.settings, devices.num_processes)
        self.optimizer = _optimizer(learning, job.settings)
        self.step = 0
        self.standing = Standing(rows=job.settings.per_device_train_batch_size)
        self.lengths = examples.lengths
        self.batches = functools.lru_cache(maxsize=1)(self._batches)
        self.is_stopped = False
        if state is not None:
            self._restore(state)

    @property
    def is_early(self) -> bool:
        """Whether the training is over because its validations no longer became better."""
        patience = self.settings.early_stopping_patience
        return patience is not None and self.standing.num_not_best >= patience

    @property
    def is_over(self) -> bool:
        """Whether there is no update left to make."""
        return self.step == self.num_steps or self.is_early

    def rehearse(self) -> bool:
        """Computes the next update without making it, so that what cannot be trained is known before a file is touched.

        Returns:
            Whether the training shall go on.

        Raises:
            DivergedError: a loss or a gradient is not finite, and no update may be left out.
            ResourceError: memory ended.
        """
        standing = self.standing
        if batch := self._batch(self.step):
            self.backend.network.language_model.train()
            parts, losses, norm = self._gradients_in_memory(batch)
            self._is_finite(parts, losses, norm)
            self.optimizer.zero_grad(set_to_none=True)
            self.standing = standing.with_rows(self.standing.rows)
        return not self.is_stopped

    def run(self, log: Log) -> None:
        """Trains to the end, or to the checkpoint after the update in which it was asked to stop.

        Raises:
            DivergedError: a loss or a gradient is not finite; nothing was updated with it.
            ResourceError: a checkpoint cannot be written, or memory ended.
        """
        self.backend.network.language_model.train()  # LoRA has a dropout, nothing else has
        self._validate_if_due(log)
        while not self.is_over and not self.is_stopped:
            self.advance(log)
            self._validate_if_due(log)
            if self.is_stopped or self.is_over or self.step % self.settings.save_steps == 0:
                self._save(log)
        self.backend.network.language_model.eval()
        if self.standing.skipped >= self.num_steps > 0:
            problem = f"all {self.num_steps} updates were left out, since no loss was finite: nothing was learned"
            raise DivergedError(problem, advice="Check the backbone and the data, or use --dtype float32.")

    def advance(self, log: Log) -> None:
        """Makes one update and writes its line.

        Raises:
            DivergedError: a loss or a gradient is not finite; nothing was updated with it.
            ResourceError: memory ended.
        """
        record = self._update()
        log.write(record)
        self.step += 1
        self.progress.on_step(record)

    def _save_if_begun(self, log: Log) -> None:
        if self.step:
            self._save(log)

    def _save(self, log: Log) -> None:
        if self.devices.is_main:
            log.sync()
            optimizer = optimizer_tensors(self.optimizer, self.learning)
            state = TrainingState(
                step=self.step,
                learning=self.learning,
                optimizer=optimizer,
                facts=self.facts,
                standing=self.standing,
            )
            try:
                save_state(self.checkpoints, state)
            except ResourceError as error:
                self._rescue(state, error)

    def _rescue(self, state: TrainingState, error: ResourceError) -> None:
        """Saves elsewhere, where that was asked for, and ends the training all the same."""
        if self.save_to is None:
            raise error
        self.save_to.mkdir(parents=True, exist_ok=True)
        save_state(self.save_to / "checkpoints", state)
        raise ResourceError(
            error.problem, advice=f"Update {state.step} is saved in {self.save_to}: --resume there (-o)."
        ) from error

    def _restore(self, state: TrainingState) -> None:
        for name, parameter in self.learning.items():
            parameter.data.copy_(state.learning[name])
        restore_optimizer(self.optimizer, self.learning, state.optimizer)
        self.step, self.standing = state.step, state.standing

    def _batches(self, epoch: int) -> list[list[int]]:
        seed = self.settings.seed
        indices = self.mixture.indices(seed=seed, epoch=epoch)
        batches = epoch_batches(self.lengths, self.batch_size, seed=seed, epoch=epoch, indices=indices)
        return [self.examples.readable(batch) for batch in batches]

    def _place(self, step: int) -> tuple[int, int]:
        """Returns the epoch of an update, and which of its batches that learns."""
        return divmod(step, num_batches(self.num_epoch_samples, self.batch_size))

    def _batch(self, step: int) -> list[int]:
        epoch, place = self._place(step)
        return self.batches(epoch)[place]

    def _update(self) -> dict[str, Any]:
        """Makes one update and returns its line of the log."""
        epoch, _ = self._place(self.step)
        batch = self._batch(self.step)
        rate = learning_rate_at(self.step, self.num_steps, self.settings)
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
            "target_tokens": self.examples.num_target_tokens(batch),
            "padding": self._padding(parts),
        }

    def _gradients_in_memory(self, batch: Sequence[int]) -> tuple[list[list[list[int]]], list[float], float]:
        """Computes an update's gradients; where memory ends, with half as many samples at once, if that is asked for.

        Returns:
            How the batch was split, every part's share of the loss, and the gradient's norm, see `_gradients`.
        """
        while True:
            parts = micro_batches(batch, self.standing.rows, self.devices.num_processes)
            try:
                return parts, *self._gradients(parts, self.examples.num_target_tokens(batch))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                # What was summed up so far goes too: the whole update is computed again, split otherwise.
                self.optimizer.zero_grad(set_to_none=True)
                self._halve_rows(batch, error)

    def _halve_rows(self, batch: Sequence[int], error: Exception) -> None:
        rows, examples = self.standing.rows, self.examples
        longest = max(batch, key=lambda index: sum(self.lengths[index]))
        name, length = examples.ids[longest], sum(self.lengths[longest])
        what = f"out of memory in update {self.step + 1} with {rows} samples at once"
        # Of several processes only this one knows; the others would wait for it in the next exchange.
        if rows == 1 or not self.settings.auto_find_batch_size or self.devices.num_processes > 1:
            raise ResourceError(
                f"{what}; the longest is {name} with {length} tokens",
                advice="Try --resume with "
                "--gradient-checkpointing, --auto-find-batch-size or a smaller --per-device-train-batch-size.",
            ) from error
        self.standing = self.standing.with_rows(rows // 2)
        self.progress.notify(f"{what}: from here on {rows // 2} at once, in more batches per update.")

    def _gradients(self, parts: Sequence[Sequence[Sequence[int]]], num_tokens: int) -> tuple[list[float], float]:
        """Computes an update's gradients, summed over the processes.

        Returns:
            Every part's share of the mean loss per token, in nats, and the gradient's norm.
        """
        devices, device = self.devices, self.backend.device
        losses = torch.zeros(len(parts), devices.num_processes, device=device)
        for number, shares in enumerate(parts):
            # Seeded for every part, since LoRA's dropout draws: a generator's state would have to be saved per process.
            torch.manual_seed(self._random_seed(number))
            own_share = shares[devices.rank]
            # A process without a sample takes part all the same: sharded weights need every one.
            loss = self.examples.nll(own_share or shares[0]) / num_tokens
            (loss * (1.0 if own_share else 0.0)).backward()  # type: ignore[no-untyped-call]
            if own_share:
                losses[number, devices.rank] = loss.detach()
        gradients = [_gradient(parameter) for parameter in self.learning.values()]
        # One vector, so that whether to stop, the losses and the gradients are agreed upon in one exchange.
        stop = torch.tensor([float(self.progress.should_stop())], device=device)
        total = devices.sum(torch.cat([stop, losses.flatten(), *(gradient.flatten() for gradient in gradients)]))
        self.is_stopped = bool(total[0] > 0)
        loss_sums, gradient_sums = total[1 : 1 + losses.numel()], total[1 + losses.numel() :]
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, value in zip(gradients, torch.split(gradient_sums, sizes), strict=True):
            gradient.copy_(value.view_as(gradient))
        return loss_sums.tolist(), float(torch.linalg.vector_norm(gradient_sums))

    def _random_seed(self, part: int) -> int:
        place = f"{self.settings.seed}/{self.step}/{self.devices.rank}/{part}"
        return random.Random(place).getrandbits(63)

    def _padding(self, parts: Sequence[Sequence[Sequence[int]]]) -> float:
        """Returns the share of the language model's positions that were padding."""
        counts = [self.examples.num_positions(share) for shares in parts for share in shares]
        num_filled, num_padded = (sum(column) for column in zip(*counts, strict=True))
        return round(1 - num_filled / num_padded, 4)

    def _is_finite(self, parts: Sequence[Sequence[Sequence[int]]], losses: Sequence[float], norm: float) -> bool:
        """Returns whether an update may be made; raises where too many may not."""
        flat = [share for shares in parts for share in shares]
        poisoned = [share for share, loss in zip(flat, losses, strict=True) if not math.isfinite(loss)]
        if not poisoned and math.isfinite(norm):
            return True
        indices = [index for share in poisoned or flat for index in share]
        ids = ", ".join(self.examples.ids[index] for index in indices[:_SHOWN_IDS])
        more = f" and {len(indices) - _SHOWN_IDS} more" if len(indices) > _SHOWN_IDS else ""
        what = f"the {'loss' if poisoned else 'gradient'} of update {self.step + 1} is not finite (samples {ids}{more})"
        if self.standing.skipped >= self.settings.skip_nonfinite:
            advice = "Check these samples, or use a lower --learning-rate or --dtype float32."
            raise DivergedError(f"{what}. Nothing was updated with it", advice=advice)
        self.standing = self.standing.with_one_more_skipped()
        self.progress.notify(f"{what}: it was left out.")
        return False

    def _validate_if_due(self, log: Log) -> None:
        """Validates unless it is not time, was done, or somebody is waiting for the end."""
        step = self.step
        is_time = step % self.settings.eval_steps == 0 or step == self.num_steps  # and before the first update
        if self.validation is None or self.is_stopped or not is_time or self.standing.validated == step:
            return
        try:
            loss = self._loss_of_validation()
        except Exception:  # e.g. memory that ended: the updates up to here are not the validation's to lose
            self._save_if_begun(log)
            raise
        if loss is None:
            self.is_stopped = True
            return
        self._judge(loss, log)

    def _loss_of_validation(self) -> float | None:
        """Returns the mean loss of what is validated on; None where it was asked to stop."""
        assert self.validation is not None
        should_stop = self.progress.should_stop
        return validation_loss(self.validation, self.devices, batch_size=self.standing.rows, should_stop=should_stop)

    def _judge(self, loss: float, log: Log) -> None:
        if not math.isfinite(loss):
            self._save_if_begun(log)
            saved = "It is saved; check" if self.step else "Check"
            problem = f"the validation loss after update {self.step} is not finite"
            raise DivergedError(problem, advice=f"{saved} what is validated on.")
        best = self.standing.best_loss
        is_best = best is None or loss < best
        if is_best:
            self.on_best()
        self.standing = self.standing.with_validation(self.step, loss)
        record = {"step": self.step, "eval_loss": loss, "is_best": is_best}
        log.write(record)
        self.progress.on_validation(record)


def _gradient(parameter: Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _optimizer(learning: Mapping[str, Parameter], settings: TrainingSettings) -> torch.optim.AdamW:
    # Biases and norms do not decay, as in LAVIS.
    matrices = [parameter for parameter in learning.values() if parameter.ndim > 1]
    vectors = [parameter for parameter in learning.values() if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=_BETAS, foreach=False)
