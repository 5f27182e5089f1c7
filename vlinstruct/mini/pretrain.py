"""Trains mini from scratch: `python -m vlinstruct.mini.pretrain --output DIR [--minutes N] [--resume]`.

The learning rate follows the clock, so that it has decayed to nothing when the time is over. The output folder gets
`log.jsonl`, `curve.png`, `checkpoint.pt` (every two minutes; `--resume` goes on from it after a kill, in the same
order of data) and at the end `model/`, an InstructBLIP folder in transformers' format.
"""

from __future__ import annotations

import argparse
import json
import math
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
from torch.nn.attention import SDPBackend, sdpa_kernel

from vlinstruct.errors import CheckpointError
from vlinstruct.mini.architecture import mini_config, new_model
from vlinstruct.mini.batches import ANSWERING, SEEING, BatchMaker, BatchShape
from vlinstruct.mini.curve import save_curve
from vlinstruct.mini.export import export
from vlinstruct.mini.losses import AuxiliaryHeads, all_losses, total_loss
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
        peak_learning_rate: reached after the warm-up.
        warm_up: share of the time in which the learning rate rises.
        seeing: share of the time in which the vision tower learns alone, from dense labels.
        weight_decay: of matrices and embeddings alike.
        gradient_norm: longer gradients are shortened to it.
        checkpoint_s: seconds between checkpoints.
        log_steps: steps between lines of the log.
    """

    output: Path
    minutes: float = 65.0
    resume: bool = False
    seed: int = 0
    processes: int = 2
    peak_learning_rate: float = 1.8e-3
    warm_up: float = 0.015
    seeing: float = 0.28
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


def learning_rate(progress: float, settings: Settings) -> float:
    """Cosine to zero, with a linear warm-up at the start and again when the questions begin.

    Args:
        progress: share of the time that has passed, 0 to 1.
        settings: give the peak and the phases.

    >>> settings = Settings(output=Path("x"), peak_learning_rate=1.0, warm_up=0.1, seeing=0.5)
    >>> learning_rate(0.0, settings), learning_rate(0.5, settings), learning_rate(1.0, settings)
    (0.0, 0.0, 0.0)
    """
    begin = settings.seeing if progress >= settings.seeing else 0.0
    warmth = min(1.0, (progress - begin) / settings.warm_up)
    return settings.peak_learning_rate * warmth * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


class Trainer:
    """One process's model, optimizer and position in the training."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.config = mini_config(language_tokenizer().get_vocab_size(), qformer_tokenizer().get_vocab_size())
        self.model: InstructBlip = new_model(self.config, settings.seed)
        vision = self.config.vision_config
        grid = vision.image_size // vision.patch_size
        self.heads = AuxiliaryHeads(vision.hidden_size, self.config.qformer_config.hidden_size, grid)
        self.optimizer = torch.optim.AdamW(
            self.parameters(), betas=(0.9, 0.98), weight_decay=settings.weight_decay, fused=True
        )
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
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.pictures, self.elapsed_s = state["step"], state["pictures"], state["elapsed_s"]

    def save(self) -> None:
        """Writes the checkpoint beside the old one, then replaces it."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
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
        # Under bfloat16 the CPU's flash attention spends 29 % of a step in its backward pass; plain attention 10 %.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            losses = all_losses(self.model, self.heads, batch)
        self.optimizer.zero_grad()
        total_loss(losses).backward()  # type: ignore[no-untyped-call]
        self.pictures += self.settings.processes * self.shape.pictures
        return losses

    def update(self) -> None:
        """Applies the gradients at the learning rate of the time."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.progress, self.settings)
        nn.utils.clip_grad_norm_(self.learning(), self.settings.gradient_norm)
        self.optimizer.step()
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
