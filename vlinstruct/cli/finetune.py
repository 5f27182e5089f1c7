"""`vlinstruct finetune`: trains the alignment layers (EMA) into an adapter."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlinstruct.cli.options import BackboneOption, DeviceOption, Dtype, takes
from vlinstruct.cli.terminal import Talk, show
from vlinstruct.cli.training_options import TrainingOptions
from vlinstruct.cli.training_progress import training_progress
from vlinstruct.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from vlinstruct.training.data.conversations import TrainingSample
    from vlinstruct.training.devices import Devices
    from vlinstruct.training.job import Finetuned, Job
    from vlinstruct.training.plan import Plan
    from vlinstruct.training.recipe import FinetuneConfig

_EXAMPLE_PICTURES, _EXAMPLE_EVAL_PICTURES = 200, 25


@takes(TrainingOptions)
def finetune(
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines, LLaVA's JSON, chat messages, or a folder of pictures with metadata.jsonl or .csv; on "
            "mini and mini-llama an example set is drawn if not given."
        ),
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option(help="The folder that picture paths start from; the data's own if not given.")
    ] = None,
    eval_data: Annotated[Path | None, typer.Option(help="What is validated on, in any of these formats.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The adapter's folder.")] = Path("adapter"),
    backbone: BackboneOption = None,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file of settings, named as the options below; options override it.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --output.")] = False,
    override: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="With --resume: this setting may be another one than before; repeatable."),
    ] = None,
    save_to: Annotated[
        Path | None, typer.Option(help="Where a checkpoint goes that --output does not take: a full or lost disk.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    check_data: Annotated[bool, typer.Option("--check-data", help="List what is wrong with --data, and stop.")] = False,
    report_to: Annotated[
        Literal["none", "tensorboard"], typer.Option(help="Where curves go beside log.jsonl and curve.png.")
    ] = "none",
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload the finished adapter, private, to this repository.")
    ] = None,
    device: DeviceOption = "auto",
    dtype: Annotated[Dtype, typer.Option(help="What the frozen parts compute in; what learns has float32.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan or the result as JSON.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Open no connection; use what is cached.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notices, no progress.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
    training: TrainingOptions,
) -> None:
    """Train a backbone's alignment layers into an adapter.

    Only the projection learns; pictures and instructions go through the frozen parts once. Defaults are the paper's
    recipe of the backbone, or a short one on mini. Stopped in any way, it goes on with --resume and ends with the same
    bits. `accelerate launch -m vlinstruct finetune ...` or torchrun train on several devices.
    """
    from vlinstruct.backends.registry import default_backbone, known_as

    if check_data:
        _check(data, image_root)
        return
    _require_before_training(report_to, push_to_hub, offline)
    name = backbone or default_backbone()
    settings = training.config(known_as(name, offline=offline), config, int(os.environ.get("WORLD_SIZE", "1")))
    from vlinstruct.training.devices import Devices

    devices = Devices(
        cpu=device == "cpu", report_to=None if report_to == "none" else report_to, folder=None if dry_run else output
    )
    talk = Talk(quiet=quiet or not devices.is_main)
    with _example_place(output, is_kept=not dry_run) as place:
        with devices.main_first():
            sets = _samples(data, eval_data, image_root, name, place, settings)
        job = _job(name, devices.device(device), dtype, offline, settings, sets, output)
        job = replace(job, resume=resume, override=tuple(override or ()), save_to=save_to)
        if dry_run:
            _show_plan(job, devices, as_json)
            return
    outcome, number = _train(job, devices, talk)
    devices.end()
    if number is not None and not outcome.is_complete:
        talk.done(
            f"stopped after update {outcome.step} of {outcome.num_steps}, which is saved. To go on, type the same "
            "command with --resume."
        )
        raise typer.Exit(128 + number)
    if devices.is_main:
        _push(output, push_to_hub, talk)
        _show_result(outcome, output, as_json)


def _require_before_training(report_to: str, push_to_hub: str | None, offline: bool) -> None:
    if report_to == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise ResourceError(
            "--report-to needs tensorboard, which is not installed: pip install 'vlinstruct[tensorboard]'."
        )
    if push_to_hub is None:
        return
    if offline:
        raise UsageError("--push-to-hub and --offline contradict each other.")
    from vlinstruct.weights.hub import require_login

    require_login()


def _check(data: Path | None, image_root: Path | None) -> None:
    from vlinstruct.errors import DataError
    from vlinstruct.training.data.conversations import problems_of

    if data is None:
        raise UsageError("--check-data needs --data, a file or a folder.")
    problems = list(problems_of(data, image_root=image_root))
    if problems:
        show("\n".join(problems))
        raise DataError(f"{len(problems)} problems in {data}", advice="They are listed on stdout.")
    show(f"nothing is wrong with {data}")


@contextmanager
def _example_place(output: Path, *, is_kept: bool) -> Iterator[Path]:
    """Gives the folder for mini's example set: in the output, or one that goes again."""
    if is_kept:
        yield output / "example-data"
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _samples(
    data: Path | None,
    eval_data: Path | None,
    image_root: Path | None,
    backbone: str,
    examples: Path,
    config: FinetuneConfig,
) -> tuple[list[TrainingSample], list[TrainingSample]]:
    """Returns what is learned and what is validated on."""
    from vlinstruct.backends.registry import BACKBONES
    from vlinstruct.training.data.conversations import read_conversations

    known = BACKBONES.get(backbone)
    if data is None and not (known is not None and known.is_built_in):
        raise UsageError(
            "--data is needed: the paper trains on LLaVA-Instruct-150K and COCO's pictures",
            advice="See huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K (its licence, CC BY-NC 4.0, is there).",
        )
    if data is None:
        from vlinstruct.mini.example_data import write_example_data

        data = write_example_data(examples, "train", pictures=_EXAMPLE_PICTURES, seed=config.seed)
        if eval_data is None:
            eval_data = write_example_data(examples, "dev", pictures=_EXAMPLE_EVAL_PICTURES, seed=config.seed)
    learned = read_conversations(data, image_root=image_root, answers=config.answers)
    if eval_data is None:
        return learned, []
    return learned, read_conversations(eval_data, image_root=image_root, answers=config.answers)


def _job(
    backbone: str,
    device: str,
    dtype: Dtype,
    offline: bool,
    config: FinetuneConfig,
    sets: Sequence[list[TrainingSample]],
    output: Path,
) -> Job:
    from vlinstruct.backends.registry import locate
    from vlinstruct.cli.run import collect_garbage_from_here
    from vlinstruct.model import compute_device, load
    from vlinstruct.training.job import Job
    from vlinstruct.weights.hub_cache import revision_of
    from vlinstruct.weights.safetensors_files import fingerprint

    where = str(compute_device(device))  # named, so that nothing is spread over several: what learns is on one
    model = load(backbone, device=where, dtype=dtype, offline=offline).backend
    collect_garbage_from_here()
    base = locate(backbone, offline=offline)
    samples, validation = sets
    return Job(
        model=model,
        samples=samples,
        validation=validation,
        folder=output,
        config=config,
        backbone=backbone,
        weights=fingerprint(base),
        revision=revision_of(base),
    )


def _train(job: Job, devices: Devices, talk: Talk) -> tuple[Finetuned, int | None]:
    """Returns how it ended, and the signal that stopped it."""
    from vlinstruct.training.finetune import finetune as train
    from vlinstruct.training.job import Progress
    from vlinstruct.training.stopping import stop_request

    with stop_request() as request, training_progress(talk) as shown:
        progress = Progress(
            on_plan=shown.begin,
            on_feature=shown.feature,
            on_step=shown.step,
            on_validation=shown.validation,
            notify=talk.notice,
            should_stop=request,
        )
        return train(job, devices=devices, progress=progress), request.number


def _push(output: Path, repository: str | None, talk: Talk) -> None:
    if repository is not None:
        from vlinstruct.weights.hub import push_adapter

        talk.done(f"uploaded to {push_adapter(output, repository)}")


def _show_plan(job: Job, devices: Devices, as_json: bool) -> None:
    from dataclasses import asdict

    from vlinstruct.records.output import RecordWriter
    from vlinstruct.training.finetune import plan

    planned = plan(job, num_processes=devices.num_processes)
    if not devices.is_main:
        return
    if as_json:
        record = {"schema": "vlinstruct.finetune_plan/1", "id": "plan", "status": "ok", **asdict(planned)}
        RecordWriter(sys.stdout.buffer).write(record)
        return
    show("\n".join(_plan_lines(planned, job)))


def _plan_lines(planned: Plan, job: Job) -> list[str]:
    lines = [f"learns      {line}" for line in _grouped(planned.learning)]
    lines += [f"            {sum(planned.learning.values()):,} numbers in all"]
    lines += [f"samples     {planned.num_samples:,}, and {len(job.validation):,} to validate on"]
    lines += [f"updates     {planned.num_steps:,} of {planned.batch_size} samples, {planned.num_processes} process(es)"]
    lines += [f"memory      {planned.weights_bytes / 1e6:,.1f} MB of frozen weights"]
    lines += [f"            {planned.learning_bytes / 1e6:,.1f} MB of what learns, with gradients and optimizer"]
    rows = job.config.per_device_train_batch_size
    lines += [f"            and the activations of {rows} samples at once"]
    lines += [f"disk        {planned.features_bytes / 1e6:,.1f} MB of frozen features"]
    lines += [f"            {planned.checkpoint_bytes / 1e6:,.1f} MB per checkpoint, two are kept"]
    return lines


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


def _show_result(outcome: Finetuned, output: Path, as_json: bool) -> None:
    from vlinstruct.records.output import RecordWriter

    if as_json:
        record = {"schema": "vlinstruct.finetune/1", "id": str(output), "status": "ok", "adapter": str(output)}
        best = {"best_step": outcome.best_step, "best_eval_loss": outcome.best_loss}
        RecordWriter(sys.stdout.buffer).write({**record, "num_steps": outcome.num_steps, **best})
    else:
        show(f"{output}")
