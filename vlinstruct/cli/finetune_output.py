"""What `vlinstruct finetune` shows, and what stops it.

While it trains: a bar on a terminal, elsewhere a line now and then, ten in all, so that a log file stays readable.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from vlinstruct.cli.terminal import Talk, show, show_record, show_report

if TYPE_CHECKING:
    from rich.progress import Progress

    from vlinstruct.training.job import Finetuned, Plan

_NUM_LINES = 10
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class StopRequest:
    """Whether a signal asked the training to stop: it then ends the update, saves and leaves.

    A second signal does what it always does, for who cannot wait. Use it as a context manager, which restores the
    earlier handlers in the end.
    """

    def __init__(self) -> None:
        self.number: int | None = None  # of the signal that has come
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self.number is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def listen(self) -> None:
        """Listens to SIGINT, SIGTERM and SIGHUP from here on: before, there is nothing to save."""
        self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        signal.signal(number, signal.SIG_DFL)


class TrainingBar:
    """Shows how far a training is; use it as a context manager, which removes the bar in the end.

    Args:
        talk: where lines go; they are all there is where stderr is no terminal.
    """

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.bar = None if talk.quiet or not sys.stderr.isatty() else _new_bar()
        self.tasks: dict[str, Any] = {}
        self.num_steps = 0
        self.num_timed_samples = 0
        self.num_timed_steps = 0
        self.start_s: float | None = None
        self.padding: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def begin(self, plan: Plan, step: int) -> None:
        """Starts the bar with what lies ahead; `step` updates are done already."""
        self.num_steps = plan.num_steps
        if self.bar is not None:
            self.bar.start()
            self.tasks["features"] = self.bar.add_task("frozen features", total=None, detail="")
            self.tasks["training"] = self.bar.add_task("training", total=plan.num_steps, completed=step, detail="")

    def feature(self) -> None:
        """Counts a row of frozen features."""
        if self.bar is not None:
            self.bar.advance(self.tasks["features"])

    def step(self, record: Mapping[str, Any]) -> None:
        """Counts an update; the first one's time, which warms up, is not counted."""
        self.padding.append(record["padding"])
        if self.start_s is None:
            self.start_s = time.monotonic()
        else:
            self.num_timed_samples += record["samples"]
            self.num_timed_steps += 1
        detail = self._detail(record)
        if self.bar is not None:
            self.bar.update(self.tasks["training"], completed=record["step"], detail=detail)
        elif record["step"] % max(1, self.num_steps // _NUM_LINES) == 0 and not self.talk.quiet:
            self.talk.progress(f"update {record['step']} of {self.num_steps}: {detail}")

    def validation(self, record: Mapping[str, Any]) -> None:
        """Prints a validation's loss, and whether it was the best so far."""
        best = ", the best so far" if record["is_best"] else ""
        self.talk.progress(f"validation after update {record['step']}: loss {record['eval_loss']:.4f}{best}")

    def _detail(self, record: Mapping[str, Any]) -> str:
        loss = "left out" if record["loss"] is None else f"loss {record['loss']:.4f}"
        parts = [loss, f"{sum(self.padding) / len(self.padding):.1%} padding"]
        passed_s = time.monotonic() - (self.start_s or 0.0)
        if self.num_timed_steps and passed_s > 0:
            left_s = (self.num_steps - record["step"]) * passed_s / self.num_timed_steps
            parts += [f"{self.num_timed_samples / passed_s:,.1f} samples/s", f"{_spelled(left_s)} left"]
        return ", ".join(parts)


def _new_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[detail]}")
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _spelled(duration_s: float) -> str:
    """Returns a duration for people.

    >>> _spelled(42), _spelled(610), _spelled(9000)
    ('42 s', '10 min', '2 h 30 min')
    """
    minutes = round(duration_s / 60)
    if duration_s < 100:
        return f"{duration_s:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def show_plan(plan: Plan, *, as_json: bool) -> None:
    """Prints what a training would do and take, for `--dry-run`: as lines, or as one record."""
    if as_json:
        fields = {name: value for name, value in asdict(plan).items() if name not in ("num_validation", "num_rows")}
        show_record({"schema": "vlinstruct.finetune_plan/1", "id": "plan", "status": "ok", **fields})
        return
    lines = [f"learns      {line}" for line in _grouped(plan.learning)]
    lines += [f"            {sum(plan.learning.values()):,} numbers in all"]
    lines += [f"samples     {plan.num_samples:,}, and {plan.num_validation:,} to validate on"]
    lines += [f"updates     {plan.num_steps:,} of {plan.batch_size} samples, {plan.num_processes} process(es)"]
    lines += [f"rate        {plan.highest_learning_rate:.2g} at its highest, warm-up of {plan.warmup_steps:,} updates"]
    lines += [f"memory      {plan.weights_bytes / 1e6:,.1f} MB of frozen weights"]
    lines += [f"            {plan.learning_bytes / 1e6:,.1f} MB of what learns, with gradients and optimizer"]
    lines += [f"            and the activations of {plan.num_rows} samples at once"]
    lines += [f"disk        {plan.features_bytes / 1e6:,.1f} MB of frozen features"]
    lines += [f"            {plan.checkpoint_bytes / 1e6:,.1f} MB per checkpoint, two are kept"]
    show_report("\n".join(lines))


def _grouped(learning: Mapping[str, int]) -> list[str]:
    """Returns a line for all layers of a kind.

    >>> _grouped({"projection.bias": 5, "block.0.q": 7, "block.1.q": 7})
    ['projection.bias: 5 numbers', 'block.*.q: 2 times 7 numbers']
    """
    kinds: dict[str, list[int]] = {}
    for name, count in learning.items():
        kinds.setdefault(re.sub(r"\.\d+\.", ".*.", name), []).append(count)
    return [
        f"{kind}: {counts[0]:,} numbers" if len(counts) == 1 else f"{kind}: {len(counts)} times {counts[0]:,} numbers"
        for kind, counts in kinds.items()
    ]


def show_result(outcome: Finetuned, output: Path, *, as_json: bool) -> None:
    """Prints the adapter's folder, or a record of how the training ended."""
    if as_json:
        record = {"schema": "vlinstruct.finetune/1", "id": str(output), "status": "ok", "adapter": str(output)}
        best = {"best_step": outcome.best_step, "best_eval_loss": outcome.best_loss}
        show_record({**record, "num_steps": outcome.num_steps, **best})
    else:
        show(str(output))
