"""`vlinstruct evaluate`: does instruction optimization help, does CMAA, by how much and with what certainty."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlinstruct.cli.command import ANSWER, INPUT, MODEL, OUTPUT, takes
from vlinstruct.cli.evaluate_output import show_checked, show_differences, show_json, show_list
from vlinstruct.cli.options import (
    AllowTruncatedOption,
    BackboneOption,
    CommonOptions,
    DeviceOption,
    Dtype,
    MaxPixelsOption,
    QuantizeOption,
)
from vlinstruct.cli.terminal import Talk, progress, show

if TYPE_CHECKING:
    from vlinstruct.evaluation.evaluate import Evaluation


@takes(CommonOptions)
def evaluate(
    benchmarks: Annotated[
        list[str] | None,
        typer.Argument(metavar="BENCHMARK...", help="gqa, textvqa, ... (--list); mini, or a task of it: mini/gqa."),
    ] = None,
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            help="The official benchmarks' files or parquet copies: DIR/gqa, DIR/textvqa, ...",
            metavar="DIR",
            rich_help_panel=INPUT,
        ),
    ] = None,
    listing: Annotated[
        bool, typer.Option("--list", help="List the official benchmarks and their files.", rich_help_panel=INPUT)
    ] = False,
    check_data: Annotated[
        bool, typer.Option("--check-data", help="List what is wrong with --data, and stop.", rich_help_panel=INPUT)
    ] = False,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Without and with each --adapter; mini's are its projection and EMA.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=100_000,
            help="The first so many items of each.",
            show_default="all; 500 of mini's",
            rich_help_panel=INPUT,
        ),
    ] = None,
    split: Annotated[
        Literal["dev", "test"], typer.Option(help="Which part of mini's world.", rich_help_panel=INPUT)
    ] = "test",
    ocr: Annotated[
        bool,
        typer.Option(
            "--ocr",
            help="Read pictures that textvqa's files have no OCR tokens of (needs vlinstruct[ocr]).",
            rich_help_panel=INPUT,
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of mini's items and the resamples.")] = 0,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="The folder of the records; an earlier run is resumed.", rich_help_panel=OUTPUT
        ),
    ] = Path("evaluation"),
    against: Annotated[
        Path | None,
        typer.Option(
            help="Another run's --output: list where its records differ, and near-ties.",
            metavar="DIR",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    backbone: BackboneOption = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            help="Trained alignment layers: a folder, or mini-ema; with --ablation several times.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    max_pixels: MaxPixelsOption = 50_000_000,
    allow_truncated: AllowTruncatedOption = False,
    device: DeviceOption = "auto",
    dtype: Annotated[Dtype, typer.Option(help="What the model computes in.", rich_help_panel=MODEL)] = "auto",
    quantize: QuantizeOption = None,
    batch_size: Annotated[
        int, typer.Option(min=1, max=1024, help="Items that go through the model together.", rich_help_panel=MODEL)
    ] = 16,
    num_beams: Annotated[
        int | None,
        typer.Option(
            help="Beams of the search for an answer.", show_default="the benchmark's own", rich_help_panel=ANSWER
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help="Most tokens of an answer.", show_default="the benchmark's own", rich_help_panel=ANSWER),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(
            help="Above 1: tokens that an answer has are less likely; LAVIS has 1.5.",
            show_default="1",
            rich_help_panel=ANSWER,
        ),
    ] = None,
    vqa_normalizer: Annotated[
        Literal["official", "lavis", "evalai"],
        typer.Option(help="How VQA accuracy compares: VQA v2.0's code, LAVIS' or lmms-eval's."),
    ] = "official",
    common: CommonOptions,
) -> None:
    """Measure a model on benchmarks, plain and optimized.

    The records of every item are kept, with the instructions, their IAS, the answers and the reasons, and a report is
    drawn with a dozen cases to look at. The ten official benchmarks are read from the files that their authors publish,
    or from the hub's parquet copies (--list).
    `accelerate launch -m vlinstruct evaluate ...` or torchrun share the items; the records are the same for any number.
    """
    names = benchmarks or []
    if listing:
        show_list(names, common.as_json)
        return
    if check_data:
        show_checked(names, data, common.as_json, ocr=ocr)
        return
    from vlinstruct.evaluation.evaluate import evaluate as evaluate_benchmarks
    from vlinstruct.evaluation.selection import EvaluationSettings
    from vlinstruct.training.devices import launched

    # Of several processes the first one talks; the others compute in silence.
    rank, _ = launched()
    talk = Talk(quiet=common.quiet or rank > 0)

    def on_table(evaluation: Evaluation) -> None:
        talk.done(f"report: {evaluation.page}")
        if common.as_json:
            show_json(evaluation.as_record())
        else:
            show(str(evaluation))
        if evaluation.differences is not None:
            show_differences(evaluation, common.as_json)

    with talk.listening():
        evaluate_benchmarks(
            names,
            backbone=backbone,
            adapter=adapter,
            data=data,
            limit=limit,
            output=output,
            against=against,
            settings=EvaluationSettings(
                ablation=ablation,
                split=split,
                seed=seed,
                ocr=ocr,
                max_pixels=max_pixels,
                allow_truncated=allow_truncated,
                batch_size=batch_size,
                num_beams=num_beams,
                max_new_tokens=max_new_tokens,
                repetition_penalty=repetition_penalty,
                vqa_normalizer=vqa_normalizer,
                device=device,
                dtype=dtype,
                quantize=quantize,
                offline=common.offline,
            ),
            progress=partial(progress, quiet=talk.quiet),
            notify=talk.notice,
            on_table=on_table,
        )
