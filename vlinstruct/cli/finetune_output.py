"""What `vlinstruct finetune` shows, and what stops it.

While it trains: a bar on a terminal, elsewhere a line now and then, ten in all, so that a log file stays readable.
"""

from __future__ import annotations

import re
import shlex
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from vlinstruct.cli.terminal import Talk, show, show_record, show_report
from vlinstruct.errors import counted

if TYPE_CHECKING:
    from rich.progress import Progress

    from vlinstruct.training.job import Finetuned, Plan

_NUM_LINES = 10
_SOON_S = 5.0  # what takes less needs no lines
_WIDE = 96  # columns that take a bar with all that is told of an update
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


class _Pace:
    """How fast something goes; the first of its items, which warms up, is not timed.

    Args:
        total: items of which some may be done already.
        done: so many of them.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self.done = total, done
        self.num_timed = self.num_units = 0
        self.start_s: float | None = None

    def advance(self, num_units: int = 1) -> None:
        """Counts an item of so many units."""
        self.done += 1
        if self.start_s is None:
            self.start_s = time.monotonic()
        else:
            self.num_timed += 1
            self.num_units += num_units

    def described(self, unit: str) -> list[str]:
        """Returns the speed and the time that is left; nothing before both are known."""
        passed_s = time.monotonic() - (self.start_s or 0.0)
        if not self.num_timed or passed_s <= 0:
            return []
        left_s = (self.total - self.done) * passed_s / self.num_timed
        return [f"{self.num_units / passed_s:,.1f} {unit}/s", f"{_spelled(left_s)} left"]

    @property
    def is_told(self) -> bool:
        """Whether it is time for one of the few lines of a log file."""
        return self.done % -(-self.total // _NUM_LINES) == 0


class TrainingBar:
    """Shows how far a training is; use it as a context manager, which removes the bar in the end.

    Args:
        talk: where lines go; they are all there is where stderr is no terminal.
    """

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.bar = None if talk.quiet or not sys.stderr.isatty() else _new_bar()
        self.task: Any = None
        self.pictures, self.updates = _Pace(0), _Pace(0)
        self.padding: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def begin(self, plan: Plan, step: int) -> None:
        """Notes what lies ahead; `step` updates are done already."""
        self.updates = _Pace(plan.num_steps, step)

    def features(self, num_pictures: int) -> None:
        """Starts to count the pictures of a set."""
        self.pictures = _Pace(num_pictures)
        if num_pictures:
            self._show("pictures read", self.pictures)

    def feature(self) -> None:
        """Counts a picture whose frozen features were computed."""
        self.pictures.advance()
        is_long = time.monotonic() - (self.pictures.start_s or 0.0) > _SOON_S
        if self.bar is not None or is_long:
            self._tell("pictures read", self.pictures, "", self.pictures.described("pictures"))

    def _show(self, name: str, pace: _Pace) -> None:
        """Puts a bar in the place of the one before."""
        if self.bar is None:
            return
        self.bar.start()
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task = self.bar.add_task(name, total=pace.total, completed=pace.done, detail="", left="")

    def _tell(self, name: str, pace: _Pace, first: str, details: list[str]) -> None:
        detail = ", ".join([*filter(None, [first]), *details])
        if self.bar is not None:
            self.bar.update(self.task, completed=pace.done, detail=detail, left=details[-1] if details else "")
        elif pace.is_told:
            self.talk.progress(f"{name} {pace.done:,} of {pace.total:,}{': ' if detail else ''}{detail}")

    def step(self, record: Mapping[str, Any]) -> None:
        """Counts an update."""
        if not self.padding:
            self._show("update", self.updates)
        self.padding.append(record["padding"])
        self.updates.advance(record["samples"])
        loss = "left out" if record["loss"] is None else f"loss {record['loss']:.4f}"
        padding = f"{sum(self.padding) / len(self.padding):.1%} padding"
        self._tell("update", self.updates, f"{loss}, {padding}", self.updates.described("samples"))

    def validation(self, record: Mapping[str, Any]) -> None:
        """Prints a validation's loss, and whether it was the best so far."""
        best = ", the best so far" if record["is_best"] and record["step"] else ""
        when = f"after update {record['step']:,}" if record["step"] else "before the first update"
        self.talk.progress(f"validation {when}: loss {record['eval_loss']:.4f}{best}")


def _new_bar() -> Progress:
    from rich.console import Console, ConsoleDimensions
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn

    class Narrower(Console):
        """Leaves room for the terminal's ^C, which would begin a line of its own: the bar would be left above it."""

        @property  # type: ignore[misc]  # rich's can be set, which nobody does here
        def size(self) -> ConsoleDimensions:
            return ConsoleDimensions(super().size.width - 3, super().size.height)

    console = Narrower(stderr=True)
    is_wide = console.width >= _WIDE
    columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn(20 if is_wide else 8)]
    columns += [MofNCompleteColumn(), TextColumn("{task.fields[detail]}" if is_wide else "{task.fields[left]}")]
    return Progress(*columns, console=console, transient=True)


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
        left_out = ("num_validation", "num_rows", "num_epoch_samples")
        fields = {name: value for name, value in asdict(plan).items() if name not in left_out}
        show_record({"schema": "vlinstruct.finetune_plan/1", "id": "plan", "status": "ok", **fields})
        return
    lines = [f"learns      {line}" for line in _grouped(plan.learning)]
    lines += [f"            {sum(plan.learning.values()):,} numbers in all"]
    is_weighted = plan.num_epoch_samples != plan.num_samples
    per_epoch = f" ({plan.num_epoch_samples:,} an epoch, by their weights)" if is_weighted else ""
    lines += [f"samples     {plan.num_samples:,}{per_epoch}, and {plan.num_validation:,} to validate on"]
    processes = counted(plan.num_processes, "process")
    lines += [f"updates     {plan.num_steps:,} of {plan.batch_size} samples, {processes}"]
    lines += [f"rate        {plan.highest_learning_rate:.2g} at its highest, warm-up of {plan.warmup_steps:,} updates"]
    stored = "" if plan.quantize is None else f", the language model's in {plan.quantize.removesuffix('bit')} bits"
    lines += [f"memory      {plan.weights_bytes / 1e6:,.1f} MB of frozen weights{stored}"]
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


def stopped(outcome: Finetuned, *, is_overwriting: bool) -> str:
    """Says what is left of a training that a signal ended, and how to go on."""
    again = f"vlinstruct finetune --resume -o {shlex.quote(str(outcome.folder))}"
    if outcome.step:
        return f"stopped after update {outcome.step:,} of {outcome.num_steps:,}, which is saved. To go on: {again}"
    if is_overwriting:
        return "stopped before the first update: what was there is as it was. To go on, type the same command again."
    return f"stopped before the first update; the pictures read so far are kept. To go on: {again}"


def result(outcome: Finetuned) -> str:
    """Says what came of a training, and what to type next."""
    from vlinstruct.backends.registry import default_backbone

    folder, why = outcome.folder, " (early: no better for --early-stopping-patience validations)"
    updates = f"{counted(outcome.step, 'update')}{why if outcome.is_early else ''}"
    losses = [loss for loss in outcome.losses if loss is not None]
    if outcome.validations and outcome.best_step is not None:
        first, last = (outcome.validations[step] for step in (min(outcome.validations), max(outcome.validations)))
        came = f"validation {first:.4f} -> {last:.4f} after {updates}"
        if outcome.best_step == 0:
            came += ", which was best before the first: try a lower --learning-rate, or more data"
        elif outcome.best_step != outcome.step:
            came, folder = f"{came}, best at {outcome.best_step:,}", folder / "best"
    elif losses:
        few = max(1, len(losses) // 10)  # one update's loss is a few samples'
        first, last = sum(losses[:few]) / few, sum(losses[-few:]) / few
        came = f"loss {first:.4f} -> {last:.4f} in {updates} (--val-size 0.05 would validate)"
    else:
        came = updates
    is_usual = outcome.backbone == default_backbone()
    model = "" if is_usual else f" --backbone {shlex.quote(outcome.backbone)}"
    model += "" if outcome.quantize is None else f" --quantize {outcome.quantize}"
    return f"{came}; try: vlinstruct ask IMAGE QUESTION{model} --adapter {shlex.quote(str(folder))}"


def show_result(outcome: Finetuned, *, as_json: bool) -> None:
    """Prints the adapter's folder, or a record of how the training ended."""
    output = str(outcome.folder)
    if as_json:
        record = {"schema": "vlinstruct.finetune/1", "id": output, "status": "ok", "adapter": output}
        best = {"best_step": outcome.best_step, "best_eval_loss": outcome.best_loss}
        evals: list[float | None] = [outcome.validations[step] for step in sorted(outcome.validations)]
        evals = evals or [None]
        ends = {"first_eval_loss": evals[0], "last_eval_loss": evals[-1], "step": outcome.step}
        show_record({**record, "num_steps": outcome.num_steps, **best, **ends})
    else:
        show(output)
