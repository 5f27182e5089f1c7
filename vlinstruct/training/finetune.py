"""The verb: trains the alignment layers of a backbone (section 3.1) on a file of pictures, instructions and answers.

    import vlinstruct as vli
    vli.finetune("data.jsonl", backbone="mini", output="adapter")
    vli.load("mini", adapter="adapter").ask("star.png", "what shape is it?")

Reads the data, loads the backbone and fingerprints it; `train` does the rest.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from functools import partial
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Unpack

from vlinstruct.backends.instructblip.opening import load_backend
from vlinstruct.backends.machine import compute_device
from vlinstruct.backends.registry import (
    BACKBONES,
    default_backbone,
    find,
    known_backbone,
    of_same_shape,
    require_instructblip,
)
from vlinstruct.errors import InputError, OutputInUseError, ResourceError, UsageError, not_installed, shortened
from vlinstruct.media.images import ImageLimits
from vlinstruct.settings import takes_options
from vlinstruct.training.data.conversations import (
    DEFAULT_DATA_OPTIONS,
    TrainingSample,
    read_conversations,
    require_pictures,
)
from vlinstruct.training.data.reading import DataOptions
from vlinstruct.training.devices import Devices
from vlinstruct.training.job import UNWATCHED, Finetuned, Job, Plan, Progress
from vlinstruct.training.settings import TrainingOptions, TrainingSettings, with_recipe
from vlinstruct.training.train import LOCK_FILE, plan_training, train
from vlinstruct.weights.hub import push_adapter, require_login

Source = str | PathLike[str]

EXAMPLE_FOLDER = "example-data"

_EXAMPLE_NAME = "mini's example set"
_EXAMPLE_PICTURES, _EXAMPLE_EVAL_PICTURES = 200, 25  # a first training takes seconds


@takes_options(TrainingSettings, shows_defaults=False)
def finetune(
    data: Source | None = None,
    *,
    backbone: str | None = None,
    output: Source = "adapter",
    eval_data: Source | None = None,
    image_root: Source | None = None,
    eval_image_root: Source | None = None,
    data_options: DataOptions = DEFAULT_DATA_OPTIONS,
    resume: bool = False,
    override: Sequence[str] = (),
    save_to: Source | None = None,
    push_to_hub: str | None = None,
    report_to: Literal["tensorboard"] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    offline: bool = False,
    progress: Progress = UNWATCHED,
    **settings: Unpack[TrainingOptions],
) -> Finetuned:
    """Trains the alignment layers of a backbone into an adapter folder.

    Under torchrun or `accelerate launch` all processes call this; the main one writes the files and tells `progress`.

    Args:
        data: JSON lines, LLaVA's JSON, chat messages, a CSV, parquet or Arrow table, or a folder of pictures with
            metadata; None draws an example set, for mini and mini-llama.
        backbone: what `load` takes; `$VLINSTRUCT_BACKBONE` or mini if None.
        output: the adapter's folder; made if it is missing.
        eval_data: what is validated on every `eval_steps`, in any of these formats; None is nothing.
        image_root: the folder that picture paths start from; the data's own if None.
        eval_image_root: the same of `eval_data`; `image_root` if None.
        data_options: which columns are meant, what is left out, which paths are allowed.
        resume: go on from the newest checkpoint in `output`.
        override: settings that may be others than the checkpoint's.
        save_to: a folder for a checkpoint that `output` does not take: a full or lost disk.
        push_to_hub: `owner/name` of the repository that the finished adapter is uploaded to, private; None uploads
            nothing.
        report_to: `tensorboard` for its curves beside log.jsonl and curve.png.
        device: as in `load`.
        dtype: what the frozen parts compute in, as in `load`; what learns has float32.
        offline: use what is cached, open no connection.
        progress: who is told how it goes, and who may stop it.
        **settings: fields of TrainingSettings; the backbone's recipe has the rest, or the paper's.

    Returns:
        How it ended; `is_complete` is False where `progress` stopped it.

    Raises:
        UsageError: a setting is unknown or out of range, or there is no data.
        DataError: the data cannot be used.
        ImageError: a picture cannot be read, and `skip_images` does not allow for it.
        CheckpointError: the backbone was refused, or all checkpoints in `output` are damaged.
        InputError: `output` holds a run and `resume` is off; or it was another run's, with other settings or data; or
            something that is no folder is there.
        OutputInUseError: another process trains in `output`.
        DivergedError: a loss is not finite.
        NetworkError: something has to be downloaded or uploaded and cannot be.
        ResourceError: the disk is full or not writable, memory ended, or a package is missing.
    """
    _require_for(push_to_hub, report_to, offline)
    folder = Path(output)
    _require_place(folder)
    devices = Devices(cpu=device == "cpu", report_to=report_to, folder=folder)
    if not devices.is_main:
        # Each process hears signals for itself, but only the main one speaks.
        progress = Progress(on_loaded=progress.on_loaded, should_stop=progress.should_stop)
    if override and not resume:
        progress.notify("--override changes nothing without --resume")
    with _removed_if_refused(folder, progress, devices) as watched:
        job = _job(
            data,
            backbone=backbone or default_backbone(),
            folder=folder,
            example_folder=folder / EXAMPLE_FOLDER,
            eval_data=eval_data,
            image_root=image_root,
            eval_image_root=eval_image_root,
            data_options=data_options,
            device=device,
            dtype=dtype,
            offline=offline,
            devices=devices,
            settings=settings,
            notify=progress.notify,
        )
        job = replace(job, resume=resume, override=tuple(override), save_to=None if save_to is None else Path(save_to))
        progress.on_loaded()
        outcome = train(job, devices=devices, progress=watched)
    devices.end()
    if push_to_hub is not None and outcome.is_complete and devices.is_main:
        outcome = replace(outcome, hub_url=push_adapter(folder, push_to_hub))
    return outcome


@takes_options(TrainingSettings, shows_defaults=False)
def plan_finetuning(
    data: Source | None = None,
    *,
    backbone: str | None = None,
    eval_data: Source | None = None,
    image_root: Source | None = None,
    eval_image_root: Source | None = None,
    data_options: DataOptions = DEFAULT_DATA_OPTIONS,
    push_to_hub: str | None = None,
    report_to: Literal["tensorboard"] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    offline: bool = False,
    notify: Callable[[str], None] = lambda notice: None,
    **settings: Unpack[TrainingOptions],
) -> Plan:
    """Works out what `finetune` would do and take: loads the data and the backbone, trains and writes nothing.

    Args:
        data: this and the rest is what `finetune` takes, and refused as `finetune` refuses it.
        backbone: what would be trained.
        eval_data: what would be validated on.
        image_root: the folder that picture paths start from.
        eval_image_root: the same of `eval_data`.
        data_options: how the data are read.
        push_to_hub: where the adapter would go; who is not logged in is told now.
        report_to: `tensorboard`; said now where it is not installed.
        device: where it would be trained.
        dtype: what the frozen parts would compute in.
        offline: use what is cached, open no connection.
        notify: is told what a user should know.
        **settings: fields of TrainingSettings.

    Raises:
        VlinstructError: as `finetune`, before its first update.
    """
    _require_for(push_to_hub, report_to, offline)
    devices = Devices(cpu=device == "cpu")
    with tempfile.TemporaryDirectory() as folder:
        job = _job(
            data,
            backbone=backbone or default_backbone(),
            folder=Path(folder),
            example_folder=Path(folder),
            eval_data=eval_data,
            image_root=image_root,
            eval_image_root=eval_image_root,
            data_options=data_options,
            device=device,
            dtype=dtype,
            offline=offline,
            devices=devices,
            settings=settings,
            notify=notify,
        )
        plan = plan_training(job, num_processes=devices.num_processes)
    for notice in plan.notices:
        notify(notice)
    return plan


@contextmanager
def _removed_if_refused(folder: Path, progress: Progress, devices: Devices) -> Iterator[Progress]:
    """Removes what a training wrote that was refused, or stopped, before it began: the example set and the lock.

    The set has to be drawn before it can be told that it is not that of the run which is to be resumed.

    Yields:
        The progress to give to the training; it tells when that has begun.
    """
    new = [path for path in (folder / EXAMPLE_FOLDER, folder / LOCK_FILE) if not path.exists()]
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    has_begun = not devices.is_main

    def on_plan(plan: Plan, step: int) -> None:
        nonlocal has_begun
        has_begun = True
        progress.on_plan(plan, step)

    try:
        yield replace(progress, on_plan=on_plan)
    except BaseException as error:
        if not has_begun and not isinstance(error, OutputInUseError):  # the lock is another process'
            for path in new:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            with suppress(OSError):  # somebody else has put something there
                for path in new_folders:
                    path.rmdir()
        raise


def _require_place(folder: Path) -> None:
    """Refuses an output that no folder can be, before anything is read or loaded for it.

    Raises:
        InputError: it, or a folder above it, is something else.
        ResourceError: it cannot be written.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(there):
        raise InputError.at(
            "cannot train into", folder, f"{shortened(str(there), 80)} is no folder", "Name another one"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise ResourceError.at(
            "cannot train into", folder, "it cannot be written", "Check the permissions and the disk"
        )


def _require_for(push_to_hub: str | None, report_to: str | None, offline: bool) -> None:
    """Refuses what could not succeed in the end, before hours are spent on a training."""
    if report_to is not None and find_spec(report_to) is None:
        raise not_installed("--report-to", report_to, report_to)
    if push_to_hub is None:
        return
    if offline:
        raise UsageError("--push-to-hub and --offline contradict each other.")
    require_login()


def _job(
    data: Source | None,
    *,
    backbone: str,
    folder: Path,
    example_folder: Path,
    eval_data: Source | None,
    image_root: Source | None,
    eval_image_root: Source | None,
    data_options: DataOptions,
    device: str,
    dtype: str,
    offline: bool,
    devices: Devices,
    settings: Mapping[str, Any],
    notify: Callable[[str], None],
) -> Job:
    """Reads the samples and loads the backbone."""
    # A named backbone is found, and perhaps downloaded, when the data has been read; a stranger's shape is needed now.
    named = known_backbone(backbone)
    require_instructblip(backbone, what="cannot train backbone")
    identity = find(backbone, offline=offline) if named is None else None
    if identity is not None:
        require_instructblip(backbone, identity.config, what="cannot train backbone")
    similar = of_same_shape(identity.config) if identity is not None else None
    if similar is not None:
        notify(f"{backbone} has the shape of {similar.name}, whose recipe is used where no option says otherwise")
    recipe = named or similar
    checked = with_recipe(settings, "" if recipe is None else recipe.name, devices.num_processes)
    if checked.lora and find_spec("peft") is None:
        raise not_installed("--lora", "peft", "lora")
    for notice in _idle(settings, checked):
        notify(notice)
    names = [str(name) for name in (data, eval_data) if name is not None] if data is not None else [_EXAMPLE_NAME]
    with devices.main_first():  # which draws the example set, if there is one to draw
        if data is None:
            data, eval_data = _example_data(backbone, example_folder, eval_data, checked.seed)
        reader = partial(read_conversations, answers=checked.answers, options=data_options, notify=notify)
        samples = reader(data, image_root=image_root)
        validation: list[TrainingSample] = []
        if eval_data is not None:
            validation = reader(eval_data, image_root=image_root if eval_image_root is None else eval_image_root)
    limits = ImageLimits(max_pixels=checked.max_pixels, allow_truncated=checked.allow_truncated)
    # Those of both sets, before anything is computed of the first.
    for of_set, option in ((samples, "--image-root"), (validation, "--eval-image-root")):
        advice = f"Name their folder with {option}"
        require_pictures(of_set, limits=limits, num_skipped=checked.skip_images, advice=advice)
    where = str(compute_device(devices.device(device)))  # named, so that nothing is spread: what learns is on one
    identity = identity or find(backbone, offline=offline)
    try:
        backend = load_backend(identity, device=where, dtype=dtype, image_size=checked.image_size, offline=offline)
    except ResourceError as error:
        if "--quantize" not in error.advice:
            raise
        # finetune has no such option.
        advice = "Use --dtype bfloat16, a smaller --backbone or another --device"
        raise ResourceError(error.problem, advice=advice, code=error.code) from error
    return Job(
        backend=backend,
        samples=samples,
        validation=validation,
        folder=folder,
        settings=checked,
        backbone=backbone,
        sources=names,
        weights=identity.fingerprint,
        revision=identity.revision,
    )


def _idle(settings: Mapping[str, Any], checked: TrainingSettings) -> list[str]:
    """Returns what to say of settings that were given and change nothing; a default is as good as not given."""
    defaults = {field.name: field.default for field in fields(TrainingSettings)}
    names = [
        name
        for name in ("lora_r", "lora_alpha", "lora_dropout")
        if settings.get(name, defaults[name]) != defaults[name]
    ]
    return [] if checked.lora or not names else [f"without lora these change nothing: {', '.join(names)}"]


def _example_data(backbone: str, folder: Path, eval_data: Source | None, seed: int) -> tuple[Source, Source]:
    """Draws mini's example sets, to learn and to validate on; the latter only where none is given."""
    entry = BACKBONES.get(backbone)
    if entry is None or not entry.is_built_in:
        raise UsageError(
            "--data is needed: the paper trains on LLaVA-Instruct-150K and COCO's pictures",
            advice="See huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K (its licence, CC BY-NC 4.0, is there).",
        )
    from vlinstruct.mini.example_data import write_example_data  # needs Pillow's fonts, which a data file does not

    data = write_example_data(folder, "train", pictures=_EXAMPLE_PICTURES, seed=seed)
    if eval_data is None:
        eval_data = write_example_data(folder, "dev", pictures=_EXAMPLE_EVAL_PICTURES, seed=seed)
    return data, eval_data
