"""Trains mini from scratch: `python -m vlinstruct.mini.pretrain --output DIR [--minutes N] [--resume]`.

The learning rate follows the clock, so that it has decayed to nothing when the time is over. The output folder gets
`log.jsonl`, `curve.png`, `checkpoint.pt` (every two minutes; `--resume` goes on from it after a kill, in the same
order of data) and at the end `model/`, an InstructBLIP folder in transformers' format.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from vlinstruct.errors import CheckpointError
from vlinstruct.mini.architecture import mini_config, new_model
from vlinstruct.mini.batches import ANSWERING, SEEING, BatchMaker, BatchShape
from vlinstruct.mini.curve import save_curve
from vlinstruct.mini.export import export
from vlinstruct.mini.losses import AuxiliaryHeads, all_losses, total_loss
from vlinstruct.mini.optimizers import Optimizers
from vlinstruct.mini.parallel import GradientAverage, shared_slots
from vlinstruct.mini.tokenizers import language_tokenizer, qformer_tokenizer
from vlinstruct.model.instructblip import InstructBlip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How mini is trained.

    Args:
        output: folder for log, checkpoint and model.
        minutes: of training, start-up not counted.
        resume: go on from the folder's checkpoint.
        seed: of parameters and data.
        processes: one thread each; each makes its own batch.
        muon_rate: peak learning rate of the hidden matrices.
        adamw_rate: peak learning rate of everything else.
        warm_up: share of the time in which the learning rate rises.
        decay: share of the time, at its end, in which the learning rate falls.
        seeing: share of the time in which the vision tower learns alone, from dense labels.
        weight_decay: of matrices and embeddings alike.
        gradient_norm: longer gradients are shortened to it.
        checkpoint_s: seconds between checkpoints.
        log_steps: steps between lines of the log.
    """

    output: Path
    minutes: float = 128.0
    resume: bool = False
    seed: int = 0
    processes: int = 2
    muon_rate: float = 3e-3
    adamw_rate: float = 1.5e-3
    warm_up: float = 0.01
    decay: float = 0.4
    seeing: float = 0.1
    weight_decay: float = 0.02
    gradient_norm: float = 1.0
    checkpoint_s: float = 120.0
    log_steps: int = 50

    @property
    def checkpoint(self) -> Path:
        """File with everything that a resumed training needs."""
        return self.output / "checkpoint.pt"

    @property
    def log(self) -> Path:
        """File with a line of losses every `log_steps` steps."""
        return self.output / "log.jsonl"


def warmth(progress: float, settings: Settings) -> float:
    """Returns the share of the peak learning rates: rises at the start and when the questions begin, falls at the end.

    Args:
        progress: share of the time that has passed, 0 to 1.
        settings: give the phases.

    >>> settings = Settings(output=Path("x"), warm_up=0.1, seeing=0.5, decay=0.25)
    >>> [warmth(progress, settings) for progress in (0.0, 0.3, 0.5, 0.7, 1.0)]
    [0.0, 1.0, 0.0, 1.0, 0.0]
    """
    begin = settings.seeing if progress >= settings.seeing else 0.0
    return min(1.0, (progress - begin) / settings.warm_up, max(0.0, 1 - progress) / settings.decay)


class Trainer:
    """One process's model, optimizer and position in the training."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.config = mini_config(language_tokenizer().get_vocab_size(), qformer_tokenizer().get_vocab_size())
        self.model: InstructBlip = new_model(self.config, settings.seed)
        self.heads = AuxiliaryHeads(self.config.vision_config.hidden_size, self.config.qformer_config.hidden_size)
        self.optimizers = Optimizers(self.model, self.heads, settings.weight_decay)
        self.step = 0
        self.pictures = 0
        self.elapsed_s = 0.0
        if settings.resume:
            self._load()

    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained, the auxiliary heads last."""
        return [*self.model.parameters(), *self.heads.parameters()]

    def learning(self) -> list[nn.Parameter]:
        """The parameters that the last losses depend on."""
        return [parameter for parameter in self.parameters() if parameter.grad is not None]

    def _load(self) -> None:
        if not self.settings.checkpoint.exists():
            raise CheckpointError(f"nothing to resume: {self.settings.checkpoint} is missing. Leave out --resume.")
        state = torch.load(self.settings.checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.optimizers.load_state_dict(state["optimizers"])
        self.step, self.pictures, self.elapsed_s = state["step"], state["pictures"], state["elapsed_s"]

    def save(self) -> None:
        """Writes the checkpoint beside the old one, then replaces it."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": self.optimizers.state_dict(),
            "step": self.step,
            "pictures": self.pictures,
            "elapsed_s": self.elapsed_s,
        }
        unfinished = self.settings.checkpoint.with_suffix(".tmp")
        torch.save(state, unfinished)
        os.replace(unfinished, self.settings.checkpoint)

    @property
    def progress(self) -> float:
        """Share of the time that has passed."""
        return self.elapsed_s / (60 * self.settings.minutes)

    @property
    def shape(self) -> BatchShape:
        """What the next step sees."""
        return SEEING if self.progress < self.settings.seeing else ANSWERING

    def losses(self, maker: BatchMaker, rank: int) -> dict[str, Tensor]:
        """Makes this process's batch of the step and computes its losses and their gradients."""
        batch = maker.make(self.step * self.settings.processes + rank, self.shape)
        with torch.autocast("cpu", torch.bfloat16):
            losses = all_losses(self.model, self.heads, batch)
        total_loss(losses).backward()  # type: ignore[no-untyped-call]
        self.pictures += self.settings.processes * self.shape.pictures
        return losses

    def update(self) -> None:
        """Applies the gradients at the learning rates of the time."""
        nn.utils.clip_grad_norm_(self.learning(), self.settings.gradient_norm)
        warm = warmth(self.progress, self.settings)
        self.optimizers.step(warm * self.settings.muon_rate, warm * self.settings.adamw_rate)
        self.step += 1


def _log(trainer: Trainer, losses: dict[str, Tensor]) -> None:
    values = {name: round(loss.item(), 4) for name, loss in losses.items()}
    line = {"step": trainer.step, "pictures": trainer.pictures, "elapsed_s": round(trainer.elapsed_s, 1), **values}
    with trainer.settings.log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def forget_after(log: Path, step: int) -> None:
    """Drops the log's lines beyond a step: what came after the checkpoint is done again."""
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
    kept = "".join(line for line in lines if json.loads(line)["step"] <= step)
    unfinished = log.with_suffix(".tmp")
    unfinished.write_text(kept, encoding="utf-8")
    os.replace(unfinished, log)


def _train(rank: int, settings: Settings, slots: Tensor, barrier: Barrier) -> None:
    """Trains in one of the processes until the time is over; the first one logs and saves."""
    torch.set_num_threads(1)
    trainer, maker = Trainer(settings), BatchMaker(settings.seed)
    average = GradientAverage(rank, slots, barrier)
    begin, saved_s = time.monotonic() - trainer.elapsed_s, trainer.elapsed_s
    while trainer.elapsed_s < 60 * settings.minutes:
        losses = trainer.losses(maker, rank)
        trainer.elapsed_s = average.average(trainer.learning(), time.monotonic() - begin)
        trainer.update()
        if rank == 0 and trainer.step % settings.log_steps == 0:
            _log(trainer, losses)
        if rank == 0 and trainer.elapsed_s - saved_s > settings.checkpoint_s:
            trainer.save()
            saved_s = trainer.elapsed_s
    if rank == 0:
        trainer.save()


def pretrain(settings: Settings) -> None:
    """Trains and exports."""
    settings.output.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(settings)
    forget_after(settings.log, trainer.step)
    slots = shared_slots(settings.processes, sum(p.numel() for p in trainer.parameters()))
    barrier = get_context("spawn").Barrier(settings.processes)
    spawn(_train, args=(settings, slots, barrier), nprocs=settings.processes)  # type: ignore[no-untyped-call]
    save_curve(settings.log, settings.output / "curve.png")
    export(settings.checkpoint, settings.output / "model")


def _settings() -> Settings:
    parser = argparse.ArgumentParser(prog="python -m vlinstruct.mini.pretrain", description="Train mini from scratch.")
    parser.add_argument("--output", type=Path, required=True, help="folder for log, checkpoint and model")
    parser.add_argument("--minutes", type=float, default=Settings.minutes, help="of training (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=Settings.processes, help="one thread each")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--resume", action="store_true", help="go on from the folder's checkpoint")
    return Settings(**vars(parser.parse_args()))


if __name__ == "__main__":
    pretrain(_settings())
