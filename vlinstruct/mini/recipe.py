"""How mini is trained: the settings, and the learning rate that follows the clock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlinstruct.mini.reading import LanguageModelName


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How mini is trained.

    Args:
        output: folder for log, checkpoint and model.
        language_model: its kind; the rest of the model is the same.
        minutes: of training, start-up not counted.
        resume: go on from the folder's checkpoint.
        start: an exported model's folder, whose weights a new training starts from; None for untrained ones. Of one
            with another kind of language model all else is taken.
        rates: share of the peak learning rates; below 1 where good weights go on.
        seed: of parameters and data.
        device: "cpu", or an accelerator as torch names it.
        processes: on a CPU, one thread each; each makes its own batch.
        scale: how many times as much as usual a step sees; an accelerator takes no longer for it.
        workers: processes that draw batches ahead for every process; an accelerator waits for one that draws its own.
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
    language_model: LanguageModelName = "t5"
    minutes: float = 128.0
    resume: bool = False
    start: Path | None = None
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
