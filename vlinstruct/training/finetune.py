"""Trains the alignment layers of a loaded model into an adapter folder.

OUTPUT/  alignment_config.json  alignment.safetensors  lora/  README.md  curve.png     the finished adapter
         best/                                                   the one of the best validation, where there are any
         settings.yaml                                           the settings, for --config
         log.jsonl  checkpoints/  features/  .lock               what a stopped run goes on from
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.nn import Parameter

from vlinstruct.backends.instructblip.adapter import CONFIG_FILE
from vlinstruct.errors import ImageError
from vlinstruct.records.lock import lock
from vlinstruct.training.adapter_folder import finish, save, write_settings
from vlinstruct.training.devices import Devices
from vlinstruct.training.examples import Examples
from vlinstruct.training.features import FeatureRows, Features, compute_features, features_fingerprint, rows_together
from vlinstruct.training.freeze import unfreeze
from vlinstruct.training.frontier import Frontier, frontier
from vlinstruct.training.job import UNWATCHED, Finetuned, Job, Progress
from vlinstruct.training.log import Log
from vlinstruct.training.loop import Loop, Task, Watch
from vlinstruct.training.plan import Plan, plan_of
from vlinstruct.training.resuming import earlier, facts_of, require_disk
from vlinstruct.training.state import TrainingState

BEST_FOLDER = "best"
_FEATURES_FOLDERS = ("features", "features-eval")


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A model that is ready to learn.

    Args:
        learning: what learns of it, by name.
        frontier: where what is frozen ends.
        rows: of each set's features.
        plan: what lies ahead.
    """

    learning: Mapping[str, Parameter]
    frontier: Frontier
    rows: Sequence[FeatureRows]
    plan: Plan


def finetune(job: Job, *, devices: Devices, progress: Progress = UNWATCHED) -> Finetuned:
    """Trains, from the beginning or from where an earlier run in the same folder stopped.

    Args:
        job: what is asked for.
        devices: the processes that train; all of them call this.
        progress: who is told.

    Raises:
        InputError: the folder holds a run and `resume` is off; or it was another run's, with other settings or data.
        OutputInUseError: another process trains in this folder.
        DivergedError: a loss is not finite.
        ResourceError: the disk is full, or memory ended.
    """
    with _locked(job.folder, devices, progress):
        return _finetune(job, devices, progress)


@contextmanager
def _locked(folder: Path, devices: Devices, progress: Progress) -> Iterator[None]:
    if not devices.is_main:
        devices.wait()
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("ab") as stream:
        for notice in lock(stream, str(folder)):
            progress.notify(notice)
        _clean(folder)
        devices.wait()
        yield


def _clean(folder: Path) -> None:
    """Removes what a killed run was about to write, or to remove."""
    for left in (folder / "checkpoints").glob(".tmp*"):
        shutil.rmtree(left)
    for place in ("", "lora", BEST_FOLDER, f"{BEST_FOLDER}/lora", *_FEATURES_FOLDERS):
        for left in (folder / place).glob(".tmp*"):  # ours, and safetensors' own
            left.unlink()


def plan(job: Job, *, num_processes: int = 1) -> Plan:
    """Works out a training before it begins; the model is prepared to learn."""
    return _prepared(job, num_processes).plan


def _prepared(job: Job, num_processes: int) -> _Prepared:
    learning = unfreeze(job.model.network, job.config)
    of = frontier(job.model, job.config.layers, job.instructions)
    rows = [FeatureRows.of(samples, is_per_picture=of.is_per_picture) for samples in job.sets]
    planned = plan_of(job.model, learning, rows, of.shape, job.config, num_processes)
    return _Prepared(learning=learning, frontier=of, rows=rows, plan=planned)


def _finetune(job: Job, devices: Devices, progress: Progress) -> Finetuned:
    prepared = _prepared(job, devices.num_processes)
    fingerprints = [features_fingerprint(samples, job.model, job.weights) for samples in job.sets]
    facts = facts_of(job, fingerprints, prepared.plan)
    devices.require_same(facts)
    state = earlier(job, facts, progress)
    if state is not None and state.step == prepared.plan.num_steps and (job.folder / CONFIG_FILE).exists():
        progress.notify("this training is already complete, nothing was changed.")
        return _outcome(state.step, prepared.plan, state.standing.best_step, state.standing.best_loss)
    require_disk(job.folder, prepared.plan)
    step = 0 if state is None else state.step
    progress.on_plan(prepared.plan, step)
    if devices.is_main:
        write_settings(job)
    examples = [_examples(job, prepared, number, one, devices, progress) for number, one in enumerate(fingerprints)]
    if devices.any(any(one.features.missing() for one in examples)):  # asked to stop
        return _outcome(step, prepared.plan)
    job.model.network.language_model.gradient_checkpointing = job.config.gradient_checkpointing
    devices.shard(job.model.network.language_model, prepared.learning.values())
    task = Task(
        model=job.model,
        learning=prepared.learning,
        examples=examples[0],
        validation=examples[1] if len(examples) > 1 else None,
        config=job.config,
        devices=devices,
        checkpoints=job.folder / "checkpoints",
        facts=facts,
        save_to=job.save_to,
    )
    return _train(job, task, prepared.plan, state, progress)


def _examples(
    job: Job, prepared: _Prepared, number: int, fingerprint: str, devices: Devices, progress: Progress
) -> Examples:
    """Computes what is missing of a set's frozen features, each process a share, and tokenises the rest."""
    of, rows = prepared.frontier, prepared.rows[number]
    folder = job.folder / _FEATURES_FOLDERS[number]
    with devices.main_first():
        features = Features(
            folder, fingerprint=fingerprint, num_rows=len(rows.firsts), shape=of.shape, dtype=job.model.dtype
        )
    compute_features(
        of,
        rows,
        features,
        together=rows_together(job.model.device),
        share=(devices.rank, devices.num_processes),
        on_progress=progress.on_feature,
        on_unreadable=_Skipped(job.config.skip_images, progress),
        should_stop=progress.should_stop,
    )
    devices.wait()
    _require_few_unreadable(rows, features, job.config.skip_images)
    return Examples(job.model, job.sets[number], of, features, rows)


class _Skipped:
    """Counts the pictures that this process leaves out, and refuses one too many.

    Args:
        limit: how many may be left out.
        progress: is told of each.
    """

    def __init__(self, limit: int, progress: Progress) -> None:
        self._limit, self._progress, self._count = limit, progress, 0

    def __call__(self, error: ImageError) -> None:
        self._count += 1
        if self._count > self._limit:
            raise error
        self._progress.notify(f"left out, {self._count} of at most {self._limit}: {error.message}")


def _require_few_unreadable(rows: FeatureRows, features: Features, limit: int) -> None:
    """Counts what all processes, and earlier runs, left out of a set."""
    unreadable = features.unreadable()
    pictures = sorted({str(rows.firsts[row].image) for row in unreadable})
    if len(pictures) > limit or (unreadable and len(unreadable) == len(rows.firsts)):
        why = f"{len(pictures)} pictures cannot be read, {limit} of those of a set may be left out, but not all"
        raise ImageError.at("cannot train on", pictures[0], why, "See --check-data, or change --skip-images")


def _train(job: Job, task: Task, planned: Plan, state: TrainingState | None, progress: Progress) -> Finetuned:
    devices = task.devices
    loop = Loop(task, _watch(job, planned, devices, progress), state)
    log_file = job.folder / "log.jsonl" if devices.is_main else None
    devices.begin_tracking(loop.step)
    with Log(log_file, last_step=loop.step, last_validation=loop.standing.validated) as log:
        loop.run(log)
    outcome = _outcome(loop.step, planned, loop.standing.best_step, loop.standing.best_loss)
    if outcome.is_complete and devices.is_main:
        finish(job, planned, outcome, progress)
    devices.wait()
    return outcome


def _watch(job: Job, planned: Plan, devices: Devices, progress: Progress) -> Watch:
    def track(values: Mapping[str, float | None], step: int) -> None:
        known = {name: value for name, value in values.items() if value is not None}
        notice = devices.track(known, step)
        if notice is not None:
            progress.notify(notice)

    def on_step(record: Mapping[str, Any]) -> None:
        shown = ("loss", "learning_rate", "grad_norm", "padding")
        track({f"train/{name}": record[name] for name in shown}, record["step"])
        progress.on_step(record)

    def on_validation(record: Mapping[str, Any]) -> None:
        track({"eval/loss": record["eval_loss"]}, record["step"])
        progress.on_validation(record)

    def on_best() -> None:
        if devices.is_main:
            save(job, job.folder / BEST_FOLDER, planned)

    return Watch(
        on_step=on_step,
        on_validation=on_validation,
        on_best=on_best,
        notify=progress.notify,
        should_stop=progress.should_stop,
    )


def _outcome(step: int, planned: Plan, best_step: int | None = None, best_loss: float | None = None) -> Finetuned:
    return Finetuned(step=step, num_steps=planned.num_steps, best_step=best_step, best_loss=best_loss)
