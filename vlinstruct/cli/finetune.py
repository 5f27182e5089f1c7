"""`vlinstruct finetune`: trains the alignment layers (EMA) into an adapter."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlinstruct.cli.options import BackboneOption, DeviceOption, Dtype, takes
from vlinstruct.cli.terminal import Talk, progress, show
from vlinstruct.errors import UsageError

if TYPE_CHECKING:
    from vlinstruct.data.conversations import TrainingSample
    from vlinstruct.model.vlm import VisionLanguageModel
    from vlinstruct.training.finetune import Finetuned, Plan
    from vlinstruct.training.recipe import FinetuneConfig

_EXAMPLE_PICTURES = 200


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """FinetuneConfig's fields; what is not given is the recipe's."""

    ema: Annotated[bool, typer.Option("--ema/--no-ema", help="With CMAA, or the plain projection.")] = True
    learning_rate: Annotated[float | None, typer.Option(help="After the warm-up.", show_default="1e-5")] = None
    weight_decay: Annotated[float | None, typer.Option(help="AdamW's, on matrices.", show_default="0.05")] = None
    warmup_steps: Annotated[int | None, typer.Option(help="Updates up to --learning-rate.", show_default="1000")] = None
    num_train_epochs: Annotated[int | None, typer.Option(help="Passes over the data.", show_default="3")] = None
    max_steps: Annotated[int | None, typer.Option(help="Updates at most.")] = None
    per_device_train_batch_size: Annotated[
        int | None, typer.Option(help="Samples that go through the model together.", show_default="8")
    ] = None
    gradient_accumulation_steps: Annotated[
        int | None, typer.Option(help="Such batches per update.", show_default="the paper's batch / 8")
    ] = None
    answers: Annotated[
        Literal["last", "all"] | None, typer.Option(help="Which answers of a conversation are learned.")
    ] = None
    seed: Annotated[int | None, typer.Option(help="Of the data's order.", show_default="0")] = None
    save_steps: Annotated[int | None, typer.Option(help="Updates between checkpoints.", show_default="500")] = None

    def config(self, backbone: str) -> FinetuneConfig:
        """Returns the checked settings."""
        from vlinstruct.training.recipe import RECIPES, FinetuneConfig

        given = {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}
        return FinetuneConfig(**{**RECIPES.get(backbone, {}), **given})


@takes(TrainingOptions)
def finetune(
    *,
    data: Annotated[
        Path | None,
        typer.Option(help="JSON lines, LLaVA's JSON or chat messages; on mini an example set is drawn if not given."),
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option(help="The folder that picture paths start from; the data's own if not given.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The adapter's folder.")] = Path("adapter"),
    backbone: BackboneOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --output.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    check_data: Annotated[bool, typer.Option("--check-data", help="List what is wrong with --data, and stop.")] = False,
    device: DeviceOption = "auto",
    dtype: Annotated[
        Dtype, typer.Option(help="What the frozen parts compute in; the projection has float32.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan or the result as JSON.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Open no connection; use what is cached.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notices, no progress.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
    training: TrainingOptions,
) -> None:
    """Train the alignment layers of a backbone on pictures with instructions and answers.

    Only the projection learns; pictures and instructions go through the frozen parts once. Defaults are the paper's
    recipe of the backbone, or a short one on mini. Stopped in any way, it goes on with --resume and ends with the same
    bits.
    """
    from vlinstruct.checkpoints.registry import default_backbone, locate
    from vlinstruct.checkpoints.safetensors_files import fingerprint
    from vlinstruct.cli.run import collect_garbage_from_here
    from vlinstruct.pipeline import load
    from vlinstruct.training.finetune import plan

    name = backbone or default_backbone()
    config = training.config(name)
    talk = Talk(quiet=quiet)
    if check_data:
        _check(data, image_root)
        return
    with _example_place(output, is_kept=not dry_run) as place:
        samples = _samples(data, image_root, name, place, config)
    model = load(name, device=device, dtype=dtype, offline=offline).model
    collect_garbage_from_here()
    if dry_run:
        _show_plan(plan(model, samples, config), as_json)
        return
    weights = fingerprint(locate(name, offline=offline))
    outcome, number = _train(model, samples, output, config, weights, resume, talk)
    if number is not None and not outcome.is_complete:
        talk.done(
            f"stopped after update {outcome.step} of {outcome.num_steps}, which is saved. To go on, type the same "
            "command with --resume."
        )
        raise typer.Exit(128 + number)
    _show_result(outcome, output, as_json)


def _check(data: Path | None, image_root: Path | None) -> None:
    from vlinstruct.data.conversations import problems_of
    from vlinstruct.errors import DataError

    if data is None:
        raise UsageError("--check-data needs --data FILE.")
    problems = list(problems_of(data, image_root=image_root))
    if problems:
        show("\n".join(problems))
        raise DataError(f"{len(problems)} records of {data} cannot be used. They are listed on stdout.")
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
    data: Path | None, image_root: Path | None, backbone: str, examples: Path, config: FinetuneConfig
) -> list[TrainingSample]:
    from vlinstruct.data.conversations import read_conversations

    if data is None and backbone != "mini":
        raise UsageError(
            "--data is needed: the paper trains on LLaVA-Instruct-150K and COCO's pictures. See "
            "huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K (its licence, CC BY-NC 4.0, is there)."
        )
    if data is None:
        from vlinstruct.mini.example_data import write_example_data

        data = write_example_data(examples, pictures=_EXAMPLE_PICTURES, seed=config.seed)
    return read_conversations(data, image_root=image_root, answers=config.answers)


def _train(
    model: VisionLanguageModel,
    samples: Sequence[TrainingSample],
    output: Path,
    config: FinetuneConfig,
    weights: str,
    resume: bool,
    talk: Talk,
) -> tuple[Finetuned, int | None]:
    """Returns how it ended, and the signal that stopped it."""
    from vlinstruct.training import finetune as room
    from vlinstruct.training.stopping import stop_request

    total = len(samples) + room.plan(model, samples, config).num_steps
    with stop_request() as request, progress(total, quiet=talk.quiet) as advance:
        outcome = room.finetune(
            model,
            samples,
            output,
            config,
            weights=weights,
            resume=resume,
            progress=room.Progress(
                on_feature=advance,
                on_step=lambda record: advance(),
                notify=talk.notice,
                should_stop=request,
            ),
        )
    return outcome, request.number


def _show_plan(planned: Plan, as_json: bool) -> None:
    from dataclasses import asdict

    from vlinstruct.data.records import RecordWriter

    if as_json:
        record = {"schema": "vlinstruct.finetune_plan/1", "id": "plan", "status": "ok", **asdict(planned)}
        RecordWriter(sys.stdout.buffer).write(record)
        return
    lines = [f"learns      {name}: {count:,} numbers" for name, count in planned.learning.items()]
    lines += [f"samples     {planned.num_samples:,}"]
    lines += [f"updates     {planned.num_steps:,} of {planned.batch_size} samples"]
    lines += [f"disk        {planned.features_bytes / 1e6:,.1f} MB of frozen features"]
    lines += [f"            {planned.checkpoint_bytes / 1e6:,.1f} MB per checkpoint, two are kept"]
    show("\n".join(lines))


def _show_result(outcome: Finetuned, output: Path, as_json: bool) -> None:
    from vlinstruct.data.records import RecordWriter

    if as_json:
        record = {"schema": "vlinstruct.finetune/1", "id": str(output), "status": "ok", "adapter": str(output)}
        RecordWriter(sys.stdout.buffer).write({**record, "num_steps": outcome.num_steps})
    else:
        show(f"{output}")
