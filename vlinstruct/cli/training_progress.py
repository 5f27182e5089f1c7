"""What a training shows while it runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vlinstruct.cli.terminal import Talk

if TYPE_CHECKING:
    from rich.progress import Progress

    from vlinstruct.training.plan import Plan

_LINES = 10


class TrainingProgress:
    """Counts what is done.

    Args:
        talk: where lines go.
        bar: rich's bar; None where there is no terminal.
    """

    def __init__(self, talk: Talk, bar: Progress | None) -> None:
        self.talk = talk
        self.bar = bar
        self.tasks: dict[str, Any] = {}
        self.num_steps = 0
        self.samples = 0
        self.steps = 0
        self.begun: float | None = None
        self.padding: list[float] = []

    def begin(self, plan: Plan, step: int) -> None:
        """Is told what lies ahead."""
        self.num_steps = plan.num_steps
        if self.bar is not None:
            self.tasks["features"] = self.bar.add_task("frozen features", total=None, said="")
            self.tasks["training"] = self.bar.add_task("training", total=plan.num_steps, completed=step, said="")

    def feature(self) -> None:
        """Counts a row of frozen features."""
        if self.bar is not None:
            self.bar.advance(self.tasks["features"])

    def step(self, record: Mapping[str, Any]) -> None:
        """Counts an update; the first one's time, which warms up, is not counted."""
        self.padding.append(record["padding"])
        if self.begun is None:
            self.begun = time.monotonic()
        else:
            self.samples += record["samples"]
            self.steps += 1
        said = self._said(record)
        if self.bar is not None:
            self.bar.update(self.tasks["training"], completed=record["step"], said=said)
        elif record["step"] % max(1, self.num_steps // _LINES) == 0 and not self.talk.quiet:
            self.talk.progress(f"update {record['step']} of {self.num_steps}: {said}")

    def validation(self, record: Mapping[str, Any]) -> None:
        """Says how a validation went."""
        best = ", the best so far" if record["is_best"] else ""
        self.talk.progress(f"validation after update {record['step']}: loss {record['eval_loss']:.4f}{best}")

    def _said(self, record: Mapping[str, Any]) -> str:
        loss = "left out" if record["loss"] is None else f"loss {record['loss']:.4f}"
        parts = [loss, f"{sum(self.padding) / len(self.padding):.1%} padding"]
        passed = time.monotonic() - (self.begun or 0.0)
        if self.steps and passed > 0:
            left = (self.num_steps - record["step"]) * passed / self.steps
            parts += [f"{self.samples / passed:,.1f} samples/s", f"{_spelled(left)} left"]
        return ", ".join(parts)


@contextmanager
def training_progress(talk: Talk) -> Iterator[TrainingProgress]:
    """Gives what to tell; the bar goes when the training ends."""
    if talk.quiet or not sys.stderr.isatty():
        yield TrainingProgress(talk, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    text = TextColumn("{task.description}"), TextColumn("{task.fields[said]}")
    console = Console(stderr=True)
    with Progress(text[0], BarColumn(), MofNCompleteColumn(), text[1], console=console, transient=True) as bar:
        yield TrainingProgress(talk, bar)


def _spelled(seconds: float) -> str:
    """Returns a duration for people.

    >>> _spelled(42), _spelled(610), _spelled(9000)
    ('42 s', '10 min', '2 h 30 min')
    """
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
