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
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any, Unpack, get_args

import torch

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import empty_model
from vlinstruct.backends.instructblip.memory import InstructBlipNeeds
from vlinstruct.backends.instructblip.opening import load_backend
from vlinstruct.backends.machine import compute_device, require_machine
from vlinstruct.backends.registry import (
    default_backbone,
    find,
    is_cached,
    known_backbone,
    of_same_shape,
    require_instructblip,
)
from vlinstruct.errors import InputError, OutputInUseError, ResourceError, UsageError, counted, not_installed, shortened
from vlinstruct.media.images import ImageLimits
from vlinstruct.settings import Quantization, Tracker, takes_options
from vlinstruct.training.adapter_folder import LOCK_FILE, foreign_files
from vlinstruct.training.data.conversations import DEFAULT_DATA_OPTIONS, require_pictures
from vlinstruct.training.data.reading import DataOptions
from vlinstruct.training.devices import Devices
from vlinstruct.training.experiment import SETTINGS_FILE, DataSource, Request, sources_of
from vlinstruct.training.job import UNWATCHED, Finetuned, Job, Plan, Progress, fitting_batch
from vlinstruct.training.resuming import batch_size_of
from vlinstruct.training.sets import example_folder, read_sets
from vlinstruct.training.settings import TrainingOptions, TrainingSettings, batch_choices, with_recipe
from vlinstruct.training.train import plan_training, train
from vlinstruct.values import Identity
from vlinstruct.weights.hub import push_adapter, require_login
from vlinstruct.weights.placement import free_bytes

Source = str | PathLike[str]

_EXAMPLE_NAME = "mini's example set"
_LLAVA = (
    "for photographs: --data llava_instruct_150k.json --image-root train2017 (LLaVA-Instruct-150K, 158,000 "
    "conversations, 229 MB, CC BY-NC 4.0, huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K; the pictures are "
    "COCO's train2017, 18 GB)"
)


@takes_options(TrainingSettings, shows_defaults=False)
def finetune(
    data: Source | Sequence[DataSource] | None = None,
    *,
    config: Source | None = None,
    backbone: str | None = None,
    output: Source | None = None,
    eval_data: Source | None = None,
    image_root: Source | None = None,
    eval_image_root: Source | None = None,
    data_options: DataOptions = DEFAULT_DATA_OPTIONS,
    resume: bool = False,
    overwrite: bool = False,
    override: Sequence[str] = (),
    save_to: Source | None = None,
    push_to_hub: str | None = None,
    report_to: Tracker | None = None,
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
            metadata; several of them with weights as `DataSource`s; None draws an example set.
        config: a YAML file, see `experiment`, of what is not given here.
        backbone: what `load` takes; `$VLINSTRUCT_BACKBONE` or mini if None.
        output: the adapter's folder; made if it is missing; `adapter` if None.
        eval_data: what is validated on every `eval_steps`, in any of these formats; None is nothing.
        image_root: the folder that picture paths start from; the data's own if None.
        eval_image_root: the same of `eval_data`; `image_root` if None.
        data_options: which columns are meant, what is left out, which paths are allowed.
        resume: go on from the newest checkpoint in `output`; what is not given is as it was.
        overwrite: replace the adapter that `output` holds, once its first update has been computed.
        override: settings that may be others than the checkpoint's.
        save_to: a folder for a checkpoint that `output` does not take: a full or lost disk.
        push_to_hub: `owner/name` of the repository that the finished adapter is uploaded to, private; None uploads
            nothing.
        report_to: one of accelerate's trackers, for curves while it runs.
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
        InputError: `output` holds a run and neither `resume` nor `overwrite` is on; or it was another run's, with other
            settings or data; or something is there that no training wrote.
        OutputInUseError: another process trains in `output`.
        DivergedError: a loss is not finite.
        NetworkError: something has to be downloaded or uploaded and cannot be.
        ResourceError: the disk is full or not writable, memory ended, or a package is missing.
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite contradict each other.")
    request = Request(
        data=sources_of(data),
        image_root=image_root,
        eval_data=eval_data,
        eval_image_root=eval_image_root,
        data_options=data_options,
        output=output,
        backbone=backbone,
        device=device,
        dtype=dtype,
        report_to=report_to,
        offline=offline,
        settings=settings,
    ).completed(config)
    folder = request.folder
    is_split_given = "gradient_accumulation_steps" in request.settings
    if resume and (folder / SETTINGS_FILE).is_file():
        request = request.completed(folder / SETTINGS_FILE)
    _require_for(push_to_hub, request.report_to, offline)
    _require_place(folder)
    devices = Devices(cpu=request.device == "cpu", report_to=request.report_to, folder=folder)
    if not devices.is_main:
        # Each process hears signals for itself, but only the main one speaks.
        progress = Progress(on_loaded=progress.on_loaded, should_stop=progress.should_stop)
    if resume and not is_split_given:
        request = request.split_over(devices.num_processes, batch_size_of(folder))
    if override and not resume:
        progress.notify("--override changes nothing without --resume")
    with _removed_if_refused(folder, request, progress, devices) as watched:
        job = _job(request, folder=folder, examples=folder, devices=devices, notify=progress.notify)
        elsewhere = None if save_to is None else Path(save_to)
        job = replace(job, resume=resume, overwrite=overwrite, override=tuple(override), save_to=elsewhere)
        progress.on_loaded()
        outcome = train(job, devices=devices, progress=watched)
    devices.end()
    if push_to_hub is not None and outcome.is_complete and devices.is_main:
        outcome = replace(outcome, hub_url=push_adapter(folder, push_to_hub))
    return outcome


@takes_options(TrainingSettings, shows_defaults=False)
def plan_finetuning(
    data: Source | Sequence[DataSource] | None = None,
    *,
    config: Source | None = None,
    backbone: str | None = None,
    eval_data: Source | None = None,
    image_root: Source | None = None,
    eval_image_root: Source | None = None,
    data_options: DataOptions = DEFAULT_DATA_OPTIONS,
    push_to_hub: str | None = None,
    report_to: Tracker | None = None,
    device: str = "auto",
    dtype: str = "auto",
    offline: bool = False,
    notify: Callable[[str], None] = lambda notice: None,
    **settings: Unpack[TrainingOptions],
) -> Plan:
    """Works out what `finetune` would do and take: loads the data and the backbone, trains and writes nothing.

    Args:
        data: this and the rest is what `finetune` takes, and refused as `finetune` refuses it.
        config: a YAML file of what is not given here.
        backbone: what would be trained.
        eval_data: what would be validated on.
        image_root: the folder that picture paths start from.
        eval_image_root: the same of `eval_data`.
        data_options: how the data are read.
        push_to_hub: where the adapter would go; who is not logged in is told now.
        report_to: a tracker; said now where it is not installed.
        device: where it would be trained.
        dtype: what the frozen parts would compute in.
        offline: use what is cached, open no connection.
        notify: is told what a user should know.
        **settings: fields of TrainingSettings.

    Raises:
        VlinstructError: as `finetune`, before its first update.
    """
    request = Request(
        data=sources_of(data),
        image_root=image_root,
        eval_data=eval_data,
        eval_image_root=eval_image_root,
        data_options=data_options,
        backbone=backbone,
        device=device,
        dtype=dtype,
        report_to=report_to,
        offline=offline,
        settings=settings,
    ).completed(config)
    _require_for(push_to_hub, request.report_to, offline)
    devices = Devices(cpu=request.device == "cpu")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        job = _job(request, folder=place, examples=place, devices=devices, notify=notify, is_plan=True)
        plan = plan_training(job, num_processes=devices.num_processes)
    for notice in plan.notices:
        notify(notice)
    return plan


@contextmanager
def _removed_if_refused(folder: Path, request: Request, progress: Progress, devices: Devices) -> Iterator[Progress]:
    """Removes what a training wrote that was refused, or stopped, before it began: the example set and the lock.

    The set has to be drawn before it can be told that it is not that of the run which is to be resumed.

    Yields:
        The progress to give to the training; it tells when that has begun.
    """
    examples = folder / example_folder(request.settings.get("seed", 0))
    new = [path for path in (examples, folder / LOCK_FILE) if not path.exists()]
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
        InputError: it, or a folder above it, is something else; or it holds files of somebody else.
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
    if foreign := foreign_files(folder):
        why = f"its {foreign[0]} was not written by a training, and would be replaced"
        raise InputError.at("cannot train into", folder, why, "Name another folder", code="output_not_empty")


def _require_for(push_to_hub: str | None, report_to: str | None, offline: bool) -> None:
    """Refuses what could not succeed in the end, before hours are spent on a training."""
    if report_to is not None:
        _require_tracker(report_to)
    if push_to_hub is None:
        return
    if offline:
        raise UsageError("--push-to-hub and --offline contradict each other.")
    require_login()


def _require_tracker(name: str) -> None:
    if name not in get_args(Tracker):
        raise UsageError(f"report_to must be one of {', '.join(get_args(Tracker))}, got {shortened(name, 40)}.")
    if find_spec(name) is None:
        package = {"comet_ml": "comet-ml"}.get(name, name)
        if name == "tensorboard":
            raise not_installed("--report-to", package, "tensorboard")
        raise ResourceError(f"--report-to needs {package}, which is not installed: pip install {package}.")
    from accelerate.tracking import get_available_trackers

    if name not in [str(tracker) for tracker in get_available_trackers()]:  # accelerate would leave it out silently
        raise ResourceError(f"--report-to needs another version of {name} than this one: accelerate does not take it.")


def _job(
    request: Request,
    *,
    folder: Path,
    examples: Path,
    devices: Devices,
    notify: Callable[[str], None],
    is_plan: bool = False,
) -> Job:
    """Reads the samples and loads the backbone; of one that is to be planned, and is not here, its shapes alone."""
    backbone, offline = request.backbone or default_backbone(), request.offline
    settings = request.settings
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
    recipe_name = "" if recipe is None else recipe.name
    checked = with_recipe(settings, recipe_name, devices.num_processes)
    if checked.lora and find_spec("peft") is None:
        raise not_installed("--lora", "peft", "lora")
    for notice in _idle(settings, checked):
        notify(notice)
    if request.eval_image_root is not None and request.eval_data is None:
        raise UsageError("--eval-image-root needs --eval-data: there is nothing to look up there.")
    if checked.val_size is not None and request.eval_data is not None:
        raise UsageError("--val-size and --eval-data contradict each other: one of them says what is validated on.")
    with devices.main_first():  # which draws the example set, if there is one to draw
        sets = read_sets(request, checked, examples, notify)
    limits = ImageLimits(max_pixels=checked.max_pixels, allow_truncated=checked.allow_truncated)
    # Those of both sets, before anything is computed of the first.
    for of_set, option in ((sets.samples, "--image-root"), (sets.validation, "--eval-image-root")):
        advice = f"Name their folder with {option}"
        require_pictures(of_set, limits=limits, num_skipped=checked.skip_images, advice=advice)
    if checked.val_size is not None:
        sets = sets.split(checked.val_size, seed=checked.seed)
    if checked.early_stopping_patience is not None and not sets.validation:
        raise UsageError("--early-stopping-patience needs --eval-data or --val-size: it goes by validations.")
    if request.data is None:
        notify(f"no --data: {len(sets.samples):,} questions about drawn pictures are learned, an example set")
        if recipe is None or not recipe.is_built_in:
            notify(_LLAVA)
    where = str(
        compute_device(devices.device(request.device))
    )  # named, so that nothing is spread: what learns is on one
    is_shape = is_plan and named is not None and not is_cached(named) and not checked.learned_cmaa
    if is_shape and named is not None:
        notify(f"{backbone} is not here, a download of {named.download_gb:g} GB: it is planned from its shapes")
        identity = Identity(
            name=backbone, entry=named, config=named.config(), is_chat_model=False, read_fingerprint=str
        )
    identity = identity or find(backbone, offline=offline)
    if is_shape:
        backend = _shapes(identity, where, request.dtype, checked.quantize)
    else:
        backend = load_backend(
            identity,
            device=where,
            dtype=request.dtype,
            quantize=checked.quantize,
            image_size=checked.image_size,
            offline=offline,
        )
    choices = batch_choices(settings, recipe_name, devices.num_processes)
    free = _free_on_accelerator(where) if choices else None
    if free is not None:
        if is_shape:
            weights = InstructBlipNeeds(backend.network.config).weights
            free = max(0, free - weights.num_bytes(backend.dtype.itemsize, checked.quantize))
        batch = fitting_batch(backend, sets.samples, choices, free, settings=checked)
        rows = devices.least(batch.rows)
        # An estimate that nobody asked for must not end a training: where it was too low, half as many go together.
        chosen = {"auto_find_batch_size": True, **settings, "per_device_train_batch_size": rows}
        checked = with_recipe(chosen, recipe_name, devices.num_processes)
        times = counted(checked.gradient_accumulation_steps, "time")
        taken = f"the longest {batch.rows} take about {batch.num_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        notify(f"{counted(rows, 'sample')} at once, {times} per update: {taken} (--per-device-train-batch-size)")
    dtype_name = str(backend.dtype).removeprefix("torch.")
    eval_names = [] if request.eval_data is None else [str(request.eval_data)]
    return Job(
        backend=backend,
        samples=sets.samples,
        validation=sets.validation,
        folder=folder,
        settings=checked,
        backbone=backbone,
        sources=[_EXAMPLE_NAME] if request.data is None else [*(it.path for it in request.data), *eval_names],
        weights=identity.fingerprint,
        revision=identity.revision,
        mixture=sets.mixture,
        source=request.as_file(backbone=backbone, dtype=dtype_name),
    )


def _free_on_accelerator(device: str) -> int | None:
    """Returns the bytes that an accelerator has free; None of a CPU, which gains nothing by more samples at once."""
    return None if torch.device(device).type == "cpu" else free_bytes(torch.device(device))


def _shapes(identity: Identity, device: str, dtype: str, quantize: Quantization | None) -> InstructBlipBackend:
    """Returns a backend without weights or tokenizers, which takes no memory: enough to count what would learn."""
    _, number_type = require_machine(device, dtype, quantize)
    absent: Any = None
    network = empty_model(InstructBlipConfig.from_dict(identity.config)).to(number_type)
    return InstructBlipBackend(
        network, image_processor=absent, tokenizer=absent, qformer_tokenizer=absent, identity=identity
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
