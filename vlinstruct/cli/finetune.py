"""`vlinstruct finetune`: trains the alignment layers (EMA) into an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vlinstruct.cli.command import MODEL, OUTPUT, takes
from vlinstruct.cli.finetune_data import TrainingDataOptions
from vlinstruct.cli.finetune_options import TrainingOptions
from vlinstruct.cli.finetune_output import StopRequest, TrainingBar, result, show_plan, show_result, stopped
from vlinstruct.cli.options import CommonOptions, DeviceOption, Dtype, LocalBackboneOption
from vlinstruct.cli.terminal import Talk
from vlinstruct.settings import Tracker


@takes(TrainingDataOptions, TrainingOptions, CommonOptions)
def finetune(
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The adapter's folder.", show_default="adapter", rich_help_panel=OUTPUT),
    ] = None,
    backbone: LocalBackboneOption = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A YAML file of the whole experiment, its names those of the options; options override it. "
            "settings.yaml of an adapter is one."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in --output, as it was begun.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace the adapter in --output, once the first update of the new one is computed.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    override: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="With --resume: this setting may be another one than before; repeatable."),
    ] = None,
    save_to: Annotated[
        Path | None, typer.Option(help="Where a checkpoint goes that --output does not take: a full or lost disk.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    report_to: Annotated[
        Literal["none", Tracker] | None,
        typer.Option(
            help="A tracker for curves while it runs, beside log.jsonl and curve.svg.", rich_help_panel=OUTPUT
        ),
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Upload the finished adapter, private, to this repository.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    device: DeviceOption = "auto",
    dtype: Annotated[
        Dtype, typer.Option(help="What the frozen parts compute in; what learns has float32.", rich_help_panel=MODEL)
    ] = "auto",
    data: TrainingDataOptions,
    training: TrainingOptions,
    common: CommonOptions,
) -> None:
    """Train a backbone's alignment layers into an adapter.

    Only the projection learns; pictures and instructions go through the frozen parts once. Defaults are the paper's
    recipe of the backbone, or a short one on mini. Stopped in any way, it goes on with --resume and ends with the same
    bits. `accelerate launch -m vlinstruct finetune ...` or torchrun train on several devices.

    \b
    vlinstruct finetune --data mine.jsonl --val-size 0.1 -o adapter
    vlinstruct finetune --resume -o adapter
    """
    talk = Talk(quiet=common.quiet)
    if data.check_data:
        data.check(talk, training.image_limits(), config=config, as_json=common.as_json)
        return
    from vlinstruct.cli.run import collect_garbage_from_here
    from vlinstruct.training.devices import is_main_process
    from vlinstruct.training.finetune import finetune, plan_finetuning
    from vlinstruct.training.job import Progress

    tracker = None if report_to == "none" else report_to
    shared: dict[str, Any] = {
        **training.typed(),
        **data.arguments(),
        "config": config,
        "backbone": backbone,
        "device": device,
        "dtype": dtype,
        "offline": common.offline,
        "report_to": tracker,
        "push_to_hub": push_to_hub,
    }
    if dry_run:
        plan = plan_finetuning(notify=talk.notice, **shared)
        if is_main_process():
            show_plan(plan, as_json=common.as_json)
        return
    with StopRequest() as request, TrainingBar(talk) as bar, talk.listening():

        def on_loaded() -> None:
            # Until here there was nothing to save, and a signal ended the loading at once.
            collect_garbage_from_here()
            request.listen()

        progress = Progress(
            on_loaded=on_loaded,
            on_plan=bar.begin,
            on_features=bar.features,
            on_feature=bar.feature,
            on_step=bar.step,
            on_validation=bar.validation,
            notify=talk.notice,
            should_stop=request,
        )
        outcome = finetune(
            output=output,
            resume=resume,
            overwrite=overwrite,
            override=tuple(override or ()),
            save_to=save_to,
            progress=progress,
            **shared,
        )
    if request.number is not None and not outcome.is_complete:
        # As a shell reports a process that the signal ended.
        if is_main_process():
            talk.done(stopped(outcome, is_overwriting=overwrite))
        raise typer.Exit(128 + request.number)
    if outcome.hub_url is not None:
        talk.done(f"uploaded to {outcome.hub_url}")
    if is_main_process():
        talk.done(result(outcome))
        show_result(outcome, as_json=common.as_json)
