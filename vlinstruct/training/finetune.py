"""Trains the alignment layers of a loaded model into an adapter folder.

OUTPUT/  alignment_config.json  alignment.safetensors  lora/  README.md  curve.png     the finished adapter
         best/                                                   the one of the best validation, where there are any
         settings.yaml                                           the settings, for --config
         log.jsonl  checkpoints/  features/  .lock               what a stopped run goes on from
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch.nn import Parameter

from vlinstruct.checkpoints.adapter import CONFIG_FILE, save_adapter
from vlinstruct.checkpoints.atomic import written_atomically
from vlinstruct.data.conversations import TrainingSample
from vlinstruct.data.lock import lock
from vlinstruct.data.text import error_line
from vlinstruct.errors import InputError, ResourceError
from vlinstruct.model.vlm import VisionLanguageModel
from vlinstruct.training.card import card
from vlinstruct.training.curve import save_curve
from vlinstruct.training.devices import Devices
from vlinstruct.training.examples import Examples
from vlinstruct.training.features import FeatureRows, Features, compute_features, features_fingerprint
from vlinstruct.training.freeze import unfreeze
from vlinstruct.training.frontier import frontier
from vlinstruct.training.log import Log
from vlinstruct.training.loop import Loop, Task, Watch
from vlinstruct.training.plan import Plan, plan_of
from vlinstruct.training.recipe import FinetuneConfig
from vlinstruct.training.state import TrainingState, newest_state

BEST_FOLDER = "best"
# What decides when files are written or how a batch is computed, but not what is learned.
_MAY_CHANGE = (
    "save_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "auto_find_batch_size",
    "skip_nonfinite",
)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Who is told how it goes, and who may stop it.

    Args:
        on_plan: called with the plan and the number of updates that are done already.
        on_feature: called for every row of frozen features that was computed.
        on_step: called with every update's line of the log.
        on_validation: called with every validation's line of the log.
        notify: is told what a user should know.
        should_stop: asked after every update.
    """

    on_plan: Callable[[Plan, int], None] = lambda plan, step: None
    on_feature: Callable[[], None] = lambda: None
    on_step: Callable[[Mapping[str, Any]], None] = lambda record: None
    on_validation: Callable[[Mapping[str, Any]], None] = lambda record: None
    notify: Callable[[str], None] = lambda notice: None
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """How a training ended.

    Args:
        step: updates done.
        num_steps: updates of the whole training.
        best_step: after which update the validation was best; None without validations.
        best_loss: what it was, in nats per token.
    """

    step: int
    num_steps: int
    best_step: int | None = None
    best_loss: float | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the adapter is finished."""
        return self.step == self.num_steps


@dataclass(frozen=True, kw_only=True)
class Order:
    """A training that was asked for.

    Args:
        model: the backbone, in eval mode.
        samples: what is learned.
        validation: what is predicted every `eval_steps`; may be empty.
        folder: the adapter's.
        config: the settings.
        backbone: what people call it.
        weights: the backbone's fingerprint.
        resume: go on from the newest checkpoint.
    """

    model: VisionLanguageModel
    samples: Sequence[TrainingSample]
    validation: Sequence[TrainingSample] = ()
    folder: Path
    config: FinetuneConfig
    backbone: str
    weights: str
    resume: bool = False

    @property
    def instructions(self) -> list[str]:
        """What the Q-Former reads, of all samples."""
        return [sample.instruction for sample in (*self.samples, *self.validation)]


def finetune(order: Order, *, devices: Devices, progress: Progress = Progress()) -> Finetuned:
    """Trains, from the beginning or from where an earlier run in the same folder stopped.

    Args:
        order: what is asked for.
        devices: the processes that train; all of them call this.
        progress: who is told.

    Raises:
        InputError: the folder holds a run and `resume` is off; or it was another run's, with other settings or data.
        OutputInUseError: another process trains in this folder.
        DivergedError: a loss is not finite.
        ResourceError: the disk is full, or memory ended.
    """
    with _locked(order.folder, devices, progress):
        return _finetune(order, devices, progress)


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
    for place in ("", "lora", BEST_FOLDER, f"{BEST_FOLDER}/lora", "features", "features-eval"):
        for left in (folder / place).glob(".tmp*"):  # ours, and safetensors' own
            left.unlink()


def plan(order: Order, *, num_processes: int = 1) -> Plan:
    """Works out a training before it begins; the model is prepared to learn."""
    return plan_of(order.model, unfreeze(order.model.model, order.config), _rows(order), order.config, num_processes)


def _rows(order: Order) -> list[FeatureRows]:
    of = frontier(order.model, order.config.layers, order.instructions)
    sets = [order.samples, order.validation] if order.validation else [order.samples]
    return [FeatureRows.of(samples, is_per_picture=of.is_per_picture) for samples in sets]


def _finetune(order: Order, devices: Devices, progress: Progress) -> Finetuned:
    learning = unfreeze(order.model.model, order.config)
    rows = _rows(order)
    planned = plan_of(order.model, learning, rows, order.config, devices.num_processes)
    fingerprints = [
        features_fingerprint(samples, order.model, order.weights) for samples in (order.samples, order.validation)
    ]
    facts = _facts(order, fingerprints, planned, devices)
    devices.require_same(facts)
    state = _earlier(order, facts, progress)
    if state is not None and state.step == planned.num_steps and (order.folder / CONFIG_FILE).exists():
        progress.notify("this training is already complete, nothing was changed.")
        return _outcome(state.step, planned, state.standing.best_step, state.standing.best_loss)
    _require_disk(order.folder, planned)
    progress.on_plan(planned, 0 if state is None else state.step)
    if devices.is_main:
        _write_settings(order)
    names = ["features", "features-eval"][: len(rows)]
    examples = [
        _examples(order, samples, order.folder / name, fingerprint, one, devices, progress)
        for samples, name, fingerprint, one in zip(
            (order.samples, order.validation), names, fingerprints, rows, strict=False
        )
    ]
    if devices.any(any(one.features.missing() for one in examples)):  # asked to stop
        return _outcome(0 if state is None else state.step, planned)
    order.model.model.language_model.gradient_checkpointing = order.config.gradient_checkpointing
    devices.shard(order.model.model.language_model, learning.values())
    return _train(order, learning, examples, planned, facts, state, devices, progress)


def _train(
    order: Order,
    learning: Mapping[str, Parameter],
    examples: Sequence[Examples],
    planned: Plan,
    facts: Mapping[str, Any],
    state: TrainingState | None,
    devices: Devices,
    progress: Progress,
) -> Finetuned:
    task = Task(
        model=order.model,
        learning=learning,
        examples=examples[0],
        validation=examples[1] if len(examples) > 1 else None,
        config=order.config,
        devices=devices,
        checkpoints=order.folder / "checkpoints",
        facts=facts,
    )
    loop = Loop(task, _watch(order, planned, devices, progress), state)
    log_file = order.folder / "log.jsonl" if devices.is_main else None
    devices.begin_tracking(loop.step)
    with Log(log_file, last_step=loop.step, last_validation=loop.standing.validated) as log:
        loop.run(log)
    outcome = _outcome(loop.step, planned, loop.standing.best_step, loop.standing.best_loss)
    if outcome.is_complete and devices.is_main:
        _finish(order, planned, outcome, progress)
    devices.wait()
    return outcome


def _watch(order: Order, planned: Plan, devices: Devices, progress: Progress) -> Watch:
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
            _save(order, order.folder / BEST_FOLDER, planned)

    return Watch(
        on_step=on_step,
        on_validation=on_validation,
        on_best=on_best,
        notify=progress.notify,
        should_stop=progress.should_stop,
    )


def _examples(
    order: Order,
    samples: Sequence[TrainingSample],
    folder: Path,
    fingerprint: str,
    rows: FeatureRows,
    devices: Devices,
    progress: Progress,
) -> Examples:
    """Computes what is missing of a set's frozen features, each process a share, and tokenises the rest."""
    of = frontier(order.model, order.config.layers, order.instructions)
    with devices.main_first():
        features = Features(
            folder, fingerprint=fingerprint, num_rows=len(rows.firsts), shape=of.shape, dtype=order.model.dtype
        )
    compute_features(
        of,
        rows,
        features,
        share=(devices.rank, devices.num_processes),
        on_progress=progress.on_feature,
        should_stop=progress.should_stop,
    )
    devices.wait()
    return Examples(order.model, samples, of, features, rows)


def _outcome(step: int, planned: Plan, best_step: int | None = None, best_loss: float | None = None) -> Finetuned:
    return Finetuned(step=step, num_steps=planned.num_steps, best_step=best_step, best_loss=best_loss)


def _earlier(order: Order, facts: Mapping[str, Any], progress: Progress) -> TrainingState | None:
    """Returns where an earlier run of the same training stopped."""
    state, notices = newest_state(order.folder / "checkpoints")
    for notice in notices:
        progress.notify(notice)
    if state is not None and not order.resume:
        advice = "Go on with --resume, or name another folder"
        raise InputError(
            error_line("cannot train into", order.folder, "it holds a run", advice), code="output_not_empty"
        )
    if state is None:
        if order.resume:
            progress.notify(f"no checkpoint in {order.folder} yet, the training starts anew.")
        return None
    _require_same(state.facts, facts, progress)
    is_split_alike = state.facts.get("split") == facts["split"]
    rows = state.standing.rows if is_split_alike else order.config.per_device_train_batch_size
    return replace(state, standing=state.standing.with_rows(rows))


def _facts(order: Order, fingerprints: Sequence[str], planned: Plan, devices: Devices) -> dict[str, Any]:
    """Returns what decides every bit of the result."""
    config = order.config
    answers = [[one.id, one.prompt, one.answer] for one in (*order.samples, *order.validation)]
    return {
        **{name: value for name, value in asdict(config).items() if name not in _MAY_CHANGE},
        "batch_size": planned.batch_size,
        "data": hashlib.sha256(json.dumps([*fingerprints, answers]).encode()).hexdigest()[:16],
        "torch": version("torch"),
        "split": [config.per_device_train_batch_size, config.gradient_accumulation_steps, devices.num_processes],
    }


def _require_same(before: Mapping[str, Any], now: Mapping[str, Any], progress: Progress) -> None:
    if before.get("torch") != now["torch"]:
        progress.notify(f"it began with torch {before.get('torch')}, this is {now['torch']}: the last bits may differ.")
    if before.get("split") != now["split"]:
        progress.notify("its batches were split otherwise over steps and processes: the last bits may differ.")
    changed = [
        f"{name} was {before.get(name)}, is {value}"
        for name, value in now.items()
        if name not in ("torch", "split") and before.get(name) != value
    ]
    if changed:
        raise InputError(
            error_line("cannot resume", "the run", "; ".join(changed), "Give what it began with, or another --output"),
            code="other_run",
        )


def _require_disk(folder: Path, planned: Plan) -> None:
    there = [folder / name / "features.bin" for name in ("features", "features-eval")]
    needed = planned.disk_bytes - sum(path.stat().st_size for path in there if path.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        why = f"{needed / 1e9:.2f} GB are needed (features and checkpoints), {free / 1e9:.2f} GB are free"
        raise ResourceError(error_line("cannot train into", folder, why, "Free some space"), code="disk_full")


def _write_settings(order: Order) -> None:
    import yaml

    with written_atomically(order.folder / "settings.yaml") as path:
        path.write_text(yaml.safe_dump(asdict(order.config), sort_keys=False), encoding="utf-8")


def _finish(order: Order, planned: Plan, outcome: Finetuned, progress: Progress) -> None:
    notice = save_curve(order.folder / "log.jsonl", order.folder / "curve.png")
    if notice is not None:
        progress.notify(notice)
    facts = {**_training_facts(order, planned), "best_step": outcome.best_step, "best_eval_loss": outcome.best_loss}
    text = card(facts, planned.learning, name=order.folder.resolve().name, backbone=order.backbone)
    with written_atomically(order.folder / "README.md") as path:
        path.write_text(text, encoding="utf-8")
    _save(order, order.folder, planned)


def _save(order: Order, folder: Path, planned: Plan) -> None:
    config = order.config
    facts = _training_facts(order, planned)
    save_adapter(folder, order.model.model, layers=config.layers, lora=config.lora, training=facts)


def _training_facts(order: Order, planned: Plan) -> dict[str, Any]:
    counts = {"num_samples": planned.num_samples, "num_steps": planned.num_steps, "batch_size": planned.batch_size}
    return {"backbone": order.backbone, "weights": order.weights, **asdict(order.config), **counts}
