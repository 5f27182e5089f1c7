"""Trains the alignment layers of a loaded model into an adapter folder.

OUTPUT/  alignment_config.json  alignment.safetensors  lora/  README.md  curve.svg     the finished adapter
         best/                                                   the one of the best validation, where there are any
         settings.yaml                                           the whole experiment, for --config
         log.jsonl  checkpoints/  features/  .lock               what a stopped run goes on from
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.nn import Parameter

from vlinstruct.backends.instructblip.adapter import CONFIG_FILE
from vlinstruct.errors import ImageError, ResourceError, is_out_of_files
from vlinstruct.files import lock
from vlinstruct.media.images import ImageLimits
from vlinstruct.training.adapter_folder import LOCK_FILE, finish, remove_run, save, write_settings
from vlinstruct.training.devices import Devices
from vlinstruct.training.examples import Examples
from vlinstruct.training.features import (
    FeatureRows,
    Features,
    compute_features,
    features_fingerprint,
    readers_beside,
    rows_together,
)
from vlinstruct.training.frontier import Frontier, frontier, unfreeze
from vlinstruct.training.job import UNWATCHED, Finetuned, Job, Plan, Progress, plan_of
from vlinstruct.training.loop import Loop
from vlinstruct.training.resuming import earlier, facts_of, require_disk
from vlinstruct.training.state import Log, read_log

BEST_FOLDER = "best"
_FEATURES_FOLDERS = ("features", "features-eval")


def train(job: Job, *, devices: Devices, progress: Progress = UNWATCHED) -> Finetuned:
    """Trains, from the beginning or from where an earlier run in the same folder stopped.

    Args:
        job: what is asked for.
        devices: the processes that train; all of them call this.
        progress: who is told.

    Raises:
        InputError: the folder holds a run and `resume` is off; or it was another run's, with other settings or data.
        OutputInUseError: another process trains in this folder.
        DivergedError: a loss is not finite.
        ResourceError: the disk is full or not writable, or memory ended.
    """
    try:
        with _locked(job.folder, devices, progress):
            return _train(job, devices, progress)
    except OSError as error:  # what is read has errors of its own: this is a file of the folder
        if is_out_of_files(error):
            raise
        why = error.strerror or type(error).__name__
        advice = "Make it writable, or free some space; then --resume"
        raise ResourceError.at("cannot train into", error.filename or job.folder, why, advice) from error


def plan_training(job: Job, *, num_processes: int = 1) -> Plan:
    """Works out a training before it begins; the backend is prepared to learn."""
    return _prepared(job, num_processes).plan


@contextmanager
def _locked(folder: Path, devices: Devices, progress: Progress) -> Iterator[None]:
    """Holds the folder's lock in the main process; the others wait until it is held and the folder is clean."""
    if not devices.is_main:
        devices.wait()
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("ab") as stream:
        for notice in lock(stream, str(folder)):
            progress.notify(notice)
        _clean(folder)
        devices.wait()
        yield


def _clean(folder: Path) -> None:
    """Removes what a killed run was about to write, or to remove."""
    for unfinished in (folder / "checkpoints").glob(".tmp*"):
        shutil.rmtree(unfinished)
    for place in ("", "lora", BEST_FOLDER, f"{BEST_FOLDER}/lora", *_FEATURES_FOLDERS):
        for unfinished in (folder / place).glob(".tmp*"):  # ours, and safetensors' own
            unfinished.unlink()


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A backend that is ready to learn.

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


def _prepared(job: Job, num_processes: int) -> _Prepared:
    learning = unfreeze(job.backend.network, job.settings)
    last_frozen = frontier(job.backend, job.settings.layers, job.instructions)
    rows = [FeatureRows.of(samples, is_per_picture=last_frozen.is_per_picture) for samples in job.sets]
    plan = plan_of(job, learning, rows, last_frozen.shape, num_processes)
    return _Prepared(learning=learning, frontier=last_frozen, rows=rows, plan=plan)


def _train(job: Job, devices: Devices, progress: Progress) -> Finetuned:
    prepared = _prepared(job, devices.num_processes)
    plan = prepared.plan
    fingerprints = [features_fingerprint(samples, job.backend, job.weights) for samples in job.sets]
    facts = facts_of(job, fingerprints, plan)
    # Each process may read a copy of its own, so what the copies are called does not count.
    devices.require_same({name: value for name, value in facts.items() if name != "sources"})
    state = earlier(job, facts, progress)
    # Nothing above wrote more than the lock: a run that is refused leaves the folder as it was.
    outcome = Finetuned(
        folder=job.folder,
        backbone=job.backbone,
        step=0 if state is None else state.step,
        num_steps=plan.num_steps,
        quantize=job.settings.quantize,
    )
    if state is not None:
        patience = job.settings.early_stopping_patience
        standing = state.standing
        is_early = patience is not None and standing.num_not_best >= patience
        outcome = replace(outcome, best_step=standing.best_step, best_loss=standing.best_loss, is_early=is_early)
        if outcome.is_complete and (job.folder / CONFIG_FILE).exists():
            progress.notify("this training is already complete, nothing was changed.")
            return _with_losses(outcome)
    require_disk(job.folder, plan)
    for notice in plan.notices:
        progress.notify(notice)
    devices.begin_tracking(outcome.step, settings=job.settings, name=job.folder.resolve().name)
    progress.on_plan(plan, outcome.step)
    if devices.is_main and not job.overwrite:
        write_settings(job)
    examples = [_examples(job, prepared, number, devices, progress, mark) for number, mark in enumerate(fingerprints)]
    if devices.any(any(of_set.features.missing() for of_set in examples)):  # it was asked to stop
        return _with_losses(outcome)
    language_model = job.backend.network.language_model
    language_model.gradient_checkpointing = job.settings.gradient_checkpointing
    devices.shard(language_model, prepared.learning.values(), quantize=job.settings.quantize)

    def on_best() -> None:
        if devices.is_main:
            save(job, job.folder / BEST_FOLDER, plan)

    loop = Loop(
        job,
        learning=prepared.learning,
        examples=examples[0],
        validation=examples[1] if len(examples) > 1 else None,
        devices=devices,
        facts=facts,
        progress=_tracked(progress, devices),
        on_best=on_best,
        state=state,
    )
    if job.overwrite:
        if not loop.rehearse():
            return outcome
        if devices.is_main:
            remove_run(job.folder)
            write_settings(job)
        devices.wait()
    log_file = job.folder / "log.jsonl" if devices.is_main else None
    with Log(log_file, last_step=loop.step, last_validation=loop.standing.validated) as log:
        loop.run(log)
    best_step, best_loss = loop.standing.best_step, loop.standing.best_loss
    outcome = replace(outcome, step=loop.step, best_step=best_step, best_loss=best_loss, is_early=loop.is_early)
    if outcome.is_complete and devices.is_main:
        finish(job, plan, outcome)
    devices.wait()
    return _with_losses(outcome)


def _with_losses(outcome: Finetuned) -> Finetuned:
    """Reads the losses from the log, where the updates of earlier runs are, too."""
    log = outcome.folder / "log.jsonl"
    records = read_log(log) if log.exists() else []
    return replace(
        outcome,
        losses=tuple(record["loss"] for record in records if "loss" in record),
        validations={record["step"]: record["eval_loss"] for record in records if "eval_loss" in record},
    )


def _examples(
    job: Job, prepared: _Prepared, number: int, devices: Devices, progress: Progress, fingerprint: str
) -> Examples:
    """Computes what is missing of a set's frozen features, each process a share, and tokenises the rest."""
    last_frozen, rows = prepared.frontier, prepared.rows[number]
    limit, num_unreadable = job.settings.skip_images, 0

    def leave_out(error: ImageError) -> None:
        nonlocal num_unreadable
        num_unreadable += 1
        if num_unreadable > limit:
            raise error
        progress.notify(f"left out, {num_unreadable} of at most {limit}: {error.message}")

    with devices.main_first():
        features = Features(
            job.folder / _FEATURES_FOLDERS[number],
            fingerprint=fingerprint,
            num_rows=len(rows.firsts),
            shape=last_frozen.shape,
            dtype=job.backend.dtype,
        )
    compute_features(
        last_frozen,
        rows,
        features,
        together=rows_together(job.backend.device),
        num_readers=readers_beside(job.backend.device, devices.num_processes),
        share=(devices.rank, devices.num_processes),
        limits=ImageLimits(max_pixels=job.settings.max_pixels, allow_truncated=job.settings.allow_truncated),
        on_begin=progress.on_features,
        on_progress=progress.on_feature,
        on_unreadable=leave_out,
        should_stop=progress.should_stop,
    )
    devices.wait()
    _require_few_unreadable(rows, features, limit)
    return Examples(job.backend, job.sets[number], last_frozen, features, rows)


def _require_few_unreadable(rows: FeatureRows, features: Features, limit: int) -> None:
    """Counts what all processes, and earlier runs, left out of a set: each of them knows its own share alone."""
    unreadable = features.unreadable()
    pictures = sorted({str(rows.firsts[row].image) for row in unreadable})
    if len(pictures) > limit or (unreadable and len(unreadable) == len(rows.firsts)):
        why = f"{len(pictures)} pictures cannot be read, {limit} of those of a set may be left out, but not all"
        raise ImageError.at("cannot train on", pictures[0], why, "See --check-data, or change --skip-images")


def _tracked(progress: Progress, devices: Devices) -> Progress:
    """Returns a progress whose updates and validations go to the tracker first."""

    def track(values: Mapping[str, float | None], step: int) -> None:
        numbers = {name: value for name, value in values.items() if value is not None}
        notice = devices.track(numbers, step)
        if notice is not None:
            progress.notify(notice)

    def on_step(record: Mapping[str, Any]) -> None:
        names = ("loss", "learning_rate", "grad_norm", "padding")
        track({f"train/{name}": record[name] for name in names}, record["step"])
        progress.on_step(record)

    def on_validation(record: Mapping[str, Any]) -> None:
        track({"eval/loss": record["eval_loss"]}, record["step"])
        progress.on_validation(record)

    return replace(progress, on_step=on_step, on_validation=on_validation)
