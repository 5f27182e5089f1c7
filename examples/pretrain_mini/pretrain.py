"""Trains mini: `python -m pretrain_mini.pretrain --output DIR [--start FOLDER] [--resume]`.

First the vision tower alone, from dense labels; then the language model and the Q-Former's reading alone, from text;
then everything. The output folder gets `log.jsonl`, `curve.png`, `checkpoint/` (every few minutes; `--resume` goes on
from it after a kill, to the same bits) and at the end `model/`, an InstructBLIP folder in transformers' format.

`--device cuda` trains on an accelerator, in one process, with `--workers` others that draw the pictures; there a step
waits for its kernels to be launched, not to be computed, so `--scale` lets it see more at once.

`--language-model llama` trains mini-llama.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from pretrain_mini.architecture import mini_config, new_model
from pretrain_mini.batches import ANSWERING, RELATING, SEEING, TYPING, Batch, BatchShape, BatchStream
from pretrain_mini.losses import AuxiliaryHeads, all_losses, total_loss
from pretrain_mini.optimizers import Optimizers
from pretrain_mini.parallel import Peers, shared_slots
from pretrain_mini.reading import LANGUAGE_MODELS, LanguageModelName
from pretrain_mini.report import save_curve
from pretrain_mini.tokenizers import language_tokenizer, qformer_tokenizer
from pretrain_mini.weights import export, familiarise, start_from
from vlinstruct.backends.instructblip.attention import prefer_kernels_for_all_shapes
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.errors import CheckpointError, VlinstructError

MODEL_FILE = "model.pt"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How mini is trained.

    Args:
        output: folder for log, checkpoint and model.
        language_model: its kind; the rest of the model is the same.
        steps: of training.
        resume: go on from the folder's checkpoint.
        start: an exported model's folder, whose weights a new training starts from; None for untrained ones. Of one
            with another kind of language model all else is taken.
        eyes: an exported model's folder from which all but the language model is taken then.
        rates: share of the peak learning rates; below 1 where good weights go on.
        seed: of parameters and data.
        device: "cpu", or an accelerator as torch names it.
        processes: on a CPU, one thread each; each makes its own batch.
        scale: how many times as much as usual a step sees; an accelerator takes no longer for it.
        workers: processes that draw batches ahead for every process; an accelerator waits for one that draws its own.
        muon_rate: peak learning rate of the hidden matrices.
        adamw_rate: peak learning rate of everything else.
        warm_up: share of the steps in which the learning rate rises, at the start of every phase.
        decay: share of the steps, at their end, in which the learning rate falls.
        seeing: share of the steps in which the vision tower learns alone, from dense labels.
        typing: share of the steps, after those, in which what people type is learned without pictures.
        relating: share of the other steps, spread among them, that ask only how things stand to each other.
        weight_decay: of matrices and embeddings alike.
        gradient_norm: longer gradients are shortened to it.
        checkpoint_s: seconds between checkpoints.
        log_steps: steps between lines of the log.
    """

    output: Path
    language_model: LanguageModelName = "t5"
    steps: int = 4000
    resume: bool = False
    start: Path | None = None
    eyes: Path | None = None
    rates: float = 1.0
    seed: int = 0
    device: str = "cpu"
    processes: int = 2
    scale: int = 1
    workers: int = 0
    muon_rate: float = 2e-3
    adamw_rate: float = 1.2e-3
    warm_up: float = 0.01
    decay: float = 0.4
    seeing: float = 0.1
    typing: float = 0.15
    relating: float = 0.0
    weight_decay: float = 0.02
    gradient_norm: float = 1.0
    checkpoint_s: float = 240.0
    log_steps: int = 50

    @property
    def checkpoint(self) -> Path:
        """Folder with everything that a resumed training needs."""
        return self.output / "checkpoint"

    @property
    def log(self) -> Path:
        """File with a line of losses every `log_steps` steps."""
        return self.output / "log.jsonl"


def warmth(progress: float, settings: Settings) -> float:
    """Returns the share of the peak learning rates: rises at the start of every phase, falls at the end.

    Args:
        progress: share of the steps that are done, 0 to 1.
        settings: give the phases.

    >>> settings = Settings(output=Path("x"), warm_up=0.1, seeing=0.5, typing=0, decay=0.25)
    >>> [warmth(progress, settings) for progress in (0.0, 0.3, 0.5, 0.7, 1.0)]
    [0.0, 1.0, 0.0, 1.0, 0.0]
    """
    begin = max(start for start in (0.0, settings.seeing, settings.seeing + settings.typing) if progress >= start)
    return min(1.0, (progress - begin) / settings.warm_up, max(0.0, 1 - progress) / settings.decay)


def shape_of(step: int, settings: Settings) -> BatchShape:
    """Returns what a step sees.

    >>> settings = Settings(output=Path("x"), seeing=0, typing=0, relating=0.25)
    >>> [shape_of(step, settings).families for step in range(4)]
    [(), (), (), ('position', 'same')]
    """
    progress = step / settings.steps
    if progress < settings.seeing:
        shape = SEEING
    elif progress < settings.seeing + settings.typing:
        shape = TYPING
    else:
        shape = RELATING if int((step + 1) * settings.relating) > int(step * settings.relating) else ANSWERING
    return shape.times(settings.scale)


class Trainer:
    """One process's model, optimizer and position in the training."""

    def __init__(self, settings: Settings, rank: int = 0) -> None:
        self.settings = settings
        self.config = mini_config(
            language_tokenizer().get_vocab_size(), qformer_tokenizer().get_vocab_size(), settings.language_model
        )
        self.device = torch.device(settings.device)
        if self.device.type == "cuda":
            prefer_kernels_for_all_shapes()
        self.model: InstructBlip = new_model(self.config, settings.seed).to(self.device)
        config = self.config
        widths = config.vision_config.hidden_size, config.qformer_config.hidden_size, config.text_config.hidden_size
        self.heads = AuxiliaryHeads(*widths).to(self.device)
        self.optimizers = Optimizers(
            self.model, self.heads, settings.weight_decay, rank=rank, processes=settings.processes
        )
        self.step = 0
        self.pictures = 0
        self.elapsed_s = 0.0
        self.taken = (
            [] if settings.start is None else [f"from {settings.start}: {start_from(settings.start, self.model)}"]
        )
        if settings.eyes is not None:
            taken = start_from(settings.eyes, self.model, with_language_model=False)
            self.taken.append(f"from {settings.eyes}: {taken}")
        if settings.resume:
            self._load(rank)

    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained, the auxiliary heads last."""
        return [*self.model.parameters(), *self.heads.parameters()]

    def learning(self) -> list[nn.Parameter]:
        """The parameters that the last losses depend on."""
        return [parameter for parameter in self.parameters() if parameter.grad is not None]

    def _load(self, rank: int) -> None:
        if not self.settings.checkpoint.exists():
            raise CheckpointError(f"nothing to resume: {self.settings.checkpoint} is missing. Leave out --resume.")
        state = torch.load(self.settings.checkpoint / MODEL_FILE, weights_only=True, map_location=self.device)
        kind, expected = state["language_model"], self.settings.language_model
        if kind != expected:
            raise CheckpointError(
                f"{self.settings.checkpoint} trains {kind}, not {expected}. Give --language-model {kind}."
            )
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        optimizers = self.settings.checkpoint / _optimizer_file(rank)
        self.optimizers.load_state_dict(torch.load(optimizers, weights_only=True, map_location=self.device))
        self.step, self.pictures, self.elapsed_s = state["step"], state["pictures"], state["elapsed_s"]

    def save(self, peers: Peers) -> None:
        """Writes the checkpoint beside the old one, then replaces it; every process writes its optimizers' state."""
        unfinished = self.settings.checkpoint.with_suffix(".tmp")
        if peers.rank == 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            state: dict[str, Any] = {
                "model": self.model.state_dict(),
                "heads": self.heads.state_dict(),
                "step": self.step,
                "pictures": self.pictures,
                "elapsed_s": self.elapsed_s,
                "language_model": self.settings.language_model,
            }
            torch.save(state, unfinished / MODEL_FILE)
        peers.meet()
        torch.save(self.optimizers.state_dict(), unfinished / _optimizer_file(peers.rank))
        peers.meet()
        if peers.rank == 0:
            replaced = self.settings.checkpoint.with_suffix(".old")
            if self.settings.checkpoint.exists():
                os.replace(self.settings.checkpoint, replaced)
            os.replace(unfinished, self.settings.checkpoint)
            shutil.rmtree(replaced, ignore_errors=True)

    @property
    def progress(self) -> float:
        """Share of the steps that are done."""
        return self.step / self.settings.steps

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Computes the losses of this process's batch and their gradients."""
        # A CPU without matrix units takes 1.5 times as long for bfloat16 as for float32.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type != "cpu"):
            losses = all_losses(self.model, self.heads, batch)
        total_loss(losses).backward()  # type: ignore[no-untyped-call]
        self.pictures += self.settings.processes * len(batch.pixels)
        return losses

    def update(self) -> None:
        """Applies the gradients at the learning rates of the time."""
        nn.utils.clip_grad_norm_(self.learning(), self.settings.gradient_norm)
        warm = self.settings.rates * warmth(self.progress, self.settings)
        self.optimizers.step(warm * self.settings.muon_rate, warm * self.settings.adamw_rate)
        self.step += 1


def _optimizer_file(rank: int) -> str:
    return f"optimizers-{rank}.pt"


def _recover(checkpoint: Path) -> None:
    """Gives the old checkpoint its name back, where a kill came between it and the new one."""
    replaced = checkpoint.with_suffix(".old")
    if replaced.exists() and not checkpoint.exists():
        os.replace(replaced, checkpoint)


def _log(trainer: Trainer, losses: dict[str, Tensor]) -> None:
    values = {name: round(loss.item(), 4) for name, loss in losses.items()}
    line = {"step": trainer.step, "pictures": trainer.pictures, "elapsed_s": round(trainer.elapsed_s, 1), **values}
    with trainer.settings.log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def forget_after(log: Path, step: int) -> None:
    """Drops the log's lines beyond a step: what came after the checkpoint is done again."""
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
    content = "".join(line for line in lines if json.loads(line)["step"] <= step)
    unfinished = log.with_suffix(".tmp")
    unfinished.write_text(content, encoding="utf-8")
    os.replace(unfinished, log)


def _train(rank: int, settings: Settings, slots: Tensor, barrier: Barrier) -> None:
    """Trains in one of the processes until the time is over; the first one logs and saves."""
    # How spawn ends a process whose parent was killed; a job in a script's background begins with it ignored, and would
    # go on writing into the folder.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    trainer = Trainer(settings, rank)
    stream = BatchStream(
        settings.seed,
        partial(shape_of, settings=settings),
        first=rank,
        stride=settings.processes,
        workers=settings.workers,
        language_model=settings.language_model,
    )
    stream.start(trainer.step)
    peers = Peers(rank, slots, barrier)
    begin, saved_s = time.monotonic() - trainer.elapsed_s, trainer.elapsed_s
    while trainer.step < settings.steps:
        losses = trainer.losses(stream.batch(trainer.step))
        trainer.elapsed_s = peers.average(trainer.learning(), time.monotonic() - begin)
        trainer.update()
        peers.pass_on(trainer.optimizers.shares)
        if rank == 0 and trainer.step % settings.log_steps == 0:
            _log(trainer, losses)
        if trainer.elapsed_s - saved_s > settings.checkpoint_s:  # the clocks' mean: all processes agree upon it
            trainer.save(peers)
            saved_s = trainer.elapsed_s
    stream.close()
    trainer.save(peers)


def pretrain(settings: Settings) -> None:
    """Trains and exports."""
    settings.output.mkdir(parents=True, exist_ok=True)
    _recover(settings.checkpoint)
    trainer = Trainer(replace(settings, device="cpu"))
    for line in trainer.taken:
        print(f"taken {line}", file=sys.stderr)
    forget_after(settings.log, trainer.step)
    slots = shared_slots(settings.processes, sum(p.numel() for p in trainer.parameters()))
    barrier = get_context("spawn").Barrier(settings.processes)
    spawn(_train, args=(settings, slots, barrier), nprocs=settings.processes)  # type: ignore[no-untyped-call]
    save_curve(settings.log, settings.output / "curve.png")
    export(settings.checkpoint / MODEL_FILE, settings.output / "model")
    familiarise(settings.output / "model")


def _settings() -> Settings:
    parser = argparse.ArgumentParser(prog="python -m pretrain_mini.pretrain", description="Train mini from scratch.")
    parser.add_argument("--output", type=Path, required=True, help="folder for log, checkpoint and model")
    parser.add_argument(
        "--language-model", choices=LANGUAGE_MODELS, default=Settings.language_model, help="its kind (default: t5)"
    )
    parser.add_argument("--steps", type=int, default=Settings.steps, help="of training (default: %(default)s)")
    parser.add_argument("--device", default=Settings.device, help="cpu, or an accelerator (default: %(default)s)")
    parser.add_argument("--processes", type=int, help="one thread each (default: 2 on a CPU, else 1)")
    parser.add_argument("--scale", type=int, default=Settings.scale, help="times as much a step (default: %(default)s)")
    parser.add_argument("--workers", type=int, help="draw ahead for each process (default: 0 on a CPU, else all cores)")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--start", type=Path, help="folder of an exported model to go on training from")
    parser.add_argument("--eyes", type=Path, help="folder of one to take all but the language model from then")
    parser.add_argument("--seeing", type=float, default=Settings.seeing, help="share of the vision tower alone")
    parser.add_argument("--typing", type=float, default=Settings.typing, help="share of text alone")
    parser.add_argument(
        "--relating", type=float, default=Settings.relating, help="share of the others that ask how things stand alone"
    )
    parser.add_argument("--rates", type=float, default=Settings.rates, help="share of the peak learning rates")
    parser.add_argument("--warm-up", type=float, default=Settings.warm_up, help="share in which the rates rise")
    parser.add_argument("--resume", action="store_true", help="go on from the folder's checkpoint")
    options = parser.parse_args()
    processes, workers = (2, 0) if options.device == "cpu" else (1, os.cpu_count() or 1)
    return Settings(
        output=options.output,
        language_model=options.language_model,
        steps=options.steps,
        resume=options.resume,
        start=options.start,
        eyes=options.eyes,
        seeing=options.seeing,
        typing=options.typing,
        relating=options.relating,
        rates=options.rates,
        warm_up=options.warm_up,
        scale=options.scale,
        seed=options.seed,
        device=options.device,
        processes=processes if options.processes is None else options.processes,
        workers=workers if options.workers is None else options.workers,
    )


def main() -> None:
    """Trains as the command line says; a user's mistake is one line on stderr."""
    try:
        pretrain(_settings())
    except VlinstructError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
