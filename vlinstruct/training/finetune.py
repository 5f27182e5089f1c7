"""Trains the alignment layers of a loaded model into an adapter folder.

OUTPUT/  alignment_config.json  alignment.safetensors  README.md     the finished adapter
         log.jsonl  checkpoints/  features/  .lock                   what a stopped run goes on from
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vlinstruct.checkpoints.adapter import CONFIG_FILE, save_adapter
from vlinstruct.checkpoints.atomic import written_atomically
from vlinstruct.data.conversations import TrainingSample
from vlinstruct.data.lock import lock
from vlinstruct.data.text import error_line
from vlinstruct.errors import InputError, ResourceError
from vlinstruct.model.vlm import VisionLanguageModel
from vlinstruct.training.card import card
from vlinstruct.training.features import Features, compute_features, feature_shape, features_fingerprint, row_bytes
from vlinstruct.training.log import Log
from vlinstruct.training.loop import Loop, Task, num_steps
from vlinstruct.training.recipe import FinetuneConfig
from vlinstruct.training.state import TrainingState, newest_state

_LEARNING_COPIES = 3  # the weights and AdamW's two moments


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a training will do.

    Args:
        learning: what learns, by name with its count.
        num_samples: N.
        num_steps: updates.
        batch_size: samples of one update.
        features_bytes: of the cache of frozen features.
        checkpoint_bytes: of one checkpoint.
    """

    learning: Mapping[str, int]
    num_samples: int
    num_steps: int
    batch_size: int
    features_bytes: int
    checkpoint_bytes: int

    @property
    def disk_bytes(self) -> int:
        """What has to be free: the cache, two checkpoints and one being written."""
        return self.features_bytes + 3 * self.checkpoint_bytes


def plan(model: VisionLanguageModel, samples: Sequence[TrainingSample], config: FinetuneConfig) -> Plan:
    """Works out a training before it begins; sets the model's EMA flag."""
    model.model.use_ema = config.ema
    projection = model.model.language_projection
    learning = {f"language_projection.{name}": one.numel() for name, one in projection.named_parameters()}
    return Plan(
        learning=learning,
        num_samples=len(samples),
        num_steps=num_steps(len(samples), config),
        batch_size=config.batch_size,
        features_bytes=len(samples) * row_bytes(feature_shape(model), model.dtype),
        checkpoint_bytes=_LEARNING_COPIES * 4 * sum(learning.values()),
    )


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Who is told how it goes, and who may stop it.

    Args:
        on_feature: called for every sample whose frozen features were computed.
        on_step: called with every update's line of the log.
        notify: is told what a user should know.
        should_stop: asked after every update.
    """

    on_feature: Callable[[], None] = lambda: None
    on_step: Callable[[Mapping[str, Any]], None] = lambda record: None
    notify: Callable[[str], None] = lambda notice: None
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """How a training ended.

    Args:
        step: updates done.
        num_steps: updates of the whole training.
    """

    step: int
    num_steps: int

    @property
    def is_complete(self) -> bool:
        """Whether the adapter is finished."""
        return self.step == self.num_steps


def finetune(
    model: VisionLanguageModel,
    samples: Sequence[TrainingSample],
    folder: Path,
    config: FinetuneConfig,
    *,
    weights: str,
    resume: bool = False,
    progress: Progress = Progress(),
) -> Finetuned:
    """Trains, from the beginning or from where an earlier run in the same folder stopped.

    Args:
        model: the backbone; its projection is what learns.
        samples: what is learned.
        folder: the adapter's.
        config: the settings.
        weights: the backbone's fingerprint.
        resume: go on from the newest checkpoint.
        progress: who is told.

    Raises:
        InputError: the folder holds a run and `resume` is off; or it was another run's, with other settings or data.
        OutputInUseError: another process trains in this folder.
        DivergedError: a loss is not finite.
        ResourceError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("ab") as stream:
        for notice in lock(stream, str(folder)):
            progress.notify(notice)
        return _finetune(model, samples, folder, config, weights, resume, progress)


def _finetune(
    model: VisionLanguageModel,
    samples: Sequence[TrainingSample],
    folder: Path,
    config: FinetuneConfig,
    weights: str,
    resume: bool,
    progress: Progress,
) -> Finetuned:
    planned = plan(model, samples, config)
    state = _earlier(folder, resume, progress)
    fingerprint = features_fingerprint(samples, model, weights)
    facts = _facts(samples, config, fingerprint)
    if state is not None:
        _require_same(state.facts, facts, progress)
        if state.step == planned.num_steps and (folder / CONFIG_FILE).exists():
            progress.notify("this training is already complete, nothing was changed.")
            return Finetuned(step=state.step, num_steps=planned.num_steps)
    _require_disk(folder, planned)
    features = Features(
        folder / "features",
        fingerprint=fingerprint,
        num_samples=len(samples),
        shape=feature_shape(model),
        dtype=model.dtype,
    )
    task = Task(
        model=model,
        samples=samples,
        features=features,
        config=config,
        checkpoints=folder / "checkpoints",
        facts=facts,
    )
    if not compute_features(
        model, samples, features, on_progress=progress.on_feature, should_stop=progress.should_stop
    ):
        return Finetuned(step=0 if state is None else state.step, num_steps=planned.num_steps)
    loop = Loop(task, state)
    with Log(folder / "log.jsonl", last_step=loop.step) as log:
        loop.run(log, on_step=progress.on_step, should_stop=progress.should_stop)
    if loop.step == planned.num_steps:
        _finish(folder, model, planned, config)
    return Finetuned(step=loop.step, num_steps=planned.num_steps)


def _earlier(folder: Path, resume: bool, progress: Progress) -> TrainingState | None:
    state, notices = newest_state(folder / "checkpoints")
    for notice in notices:
        progress.notify(notice)
    if state is not None and not resume:
        advice = "Go on with --resume, or name another folder"
        raise InputError(error_line("cannot train into", folder, "it holds a run", advice), code="output_not_empty")
    if state is None and resume:
        progress.notify(f"no checkpoint in {folder} yet, the training starts anew.")
    return state


def _facts(samples: Sequence[TrainingSample], config: FinetuneConfig, fingerprint: str) -> dict[str, Any]:
    """Returns what decides every bit of the result."""
    answers = [[sample.id, sample.prompt, sample.answer] for sample in samples]
    settings = {name: value for name, value in asdict(config).items() if name != "save_steps"}
    return {**settings, "data": _digest([fingerprint, answers]), "torch": version("torch")}


def _digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _require_same(before: Mapping[str, Any], now: Mapping[str, Any], progress: Progress) -> None:
    if before.get("torch") != now["torch"]:
        progress.notify(f"it began with torch {before.get('torch')}, this is {now['torch']}: the last bits may differ.")
    changed = [
        f"{name} was {before.get(name)}, is {value}"
        for name, value in now.items()
        if name != "torch" and before.get(name) != value
    ]
    if changed:
        raise InputError(
            error_line("cannot resume", "the run", "; ".join(changed), "Give what it began with, or another --output"),
            code="other_run",
        )


def _require_disk(folder: Path, planned: Plan) -> None:
    there = folder / "features" / "features.bin"
    needed = planned.disk_bytes - (there.stat().st_size if there.exists() else 0)
    free = shutil.disk_usage(folder).free
    if needed > free:
        why = f"{needed / 1e9:.2f} GB are needed (features and checkpoints), {free / 1e9:.2f} GB are free"
        raise ResourceError(error_line("cannot train into", folder, why, "Free some space"), code="disk_full")


def _finish(folder: Path, model: VisionLanguageModel, planned: Plan, config: FinetuneConfig) -> None:
    facts = {**asdict(config), "num_samples": planned.num_samples, "num_steps": planned.num_steps}
    with written_atomically(folder / "README.md") as path:
        path.write_text(card(facts, planned.learning, os.fspath(folder)), encoding="utf-8")
    save_adapter(folder, model.model, training=facts)
