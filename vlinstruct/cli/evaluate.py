"""`vlinstruct evaluate`: does instruction optimization help, does CMAA, by how much and with what certainty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlinstruct.cli.answer_options import ThresholdOptions
from vlinstruct.cli.command import MODEL, OUTPUT, takes
from vlinstruct.cli.completion import adapter_names, benchmark_names
from vlinstruct.cli.evaluate_options import BenchmarkAnswerOptions, BenchmarkOptions, CalibrationOptions
from vlinstruct.cli.evaluate_output import show_blocks, show_checked, show_comparison, show_json, show_list
from vlinstruct.cli.idle import Idle, refuse_idle
from vlinstruct.cli.options import (
    BackboneOption,
    DeviceOption,
    Dtype,
    ImageSizeOption,
    QuantizeOption,
    ServedOptions,
    ThinkOption,
)
from vlinstruct.cli.terminal import Talk, progress, show_report
from vlinstruct.errors import BatchError, UsageError
from vlinstruct.settings import ModelSettings

if TYPE_CHECKING:
    from vlinstruct.evaluation.evaluate import Evaluation


_OUTPUT = Path("evaluation")
_WITH_CALIBRATE, _WITH_COMPARE = "with --calibrate", "with --compare"


@takes(BenchmarkOptions, CalibrationOptions, BenchmarkAnswerOptions, ThresholdOptions, ServedOptions)
def evaluate(
    benchmarks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BENCHMARK...",
            help="gqa, textvqa, ... (--list); mini, or a task of it: mini/gqa.",
            autocompletion=benchmark_names,
        ),
    ] = None,
    *,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Without and with each --adapter; mini's are its projection and EMA.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of mini's items and the resamples.")] = 0,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="The folder of the records; an earlier run is resumed.", rich_help_panel=OUTPUT
        ),
    ] = _OUTPUT,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run's records.", rich_help_panel=OUTPUT)
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Another run's --output: compare this one with it, as --compare does.",
            metavar="DIR",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            help="Two runs' --output: does the second answer better? -o writes it to a file, .html or .md.",
            metavar="DIR DIR",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write the page here, too.", metavar="FILE.html", rich_help_panel=OUTPUT),
    ] = None,
    backbone: BackboneOption = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            help="Trained alignment layers: a folder, or mini-ema; with --ablation several times.",
            rich_help_panel=MODEL,
            autocompletion=adapter_names,
        ),
    ] = None,
    device: DeviceOption = "auto",
    dtype: Annotated[Dtype, typer.Option(help="What the model computes in.", rich_help_panel=MODEL)] = "auto",
    quantize: QuantizeOption = None,
    image_size: ImageSizeOption = None,
    think: ThinkOption = False,
    batch_size: Annotated[
        int, typer.Option(min=1, max=1024, help="Items that go through the model together.", rich_help_panel=MODEL)
    ] = 16,
    reading: BenchmarkOptions,
    calibration: CalibrationOptions,
    answering: BenchmarkAnswerOptions,
    thresholds: ThresholdOptions,
    common: ServedOptions,
) -> None:
    """Measure a model on benchmarks, plain and optimized.

    The records of every item are kept, with the instructions, their IAS, the answers and the reasons, and a page is
    written with a verdict, all figures and a dozen cases to look at. The ten official benchmarks are read from the
    files that their authors publish, or from the hub's parquet copies (--list). With --compare it answers nothing, and
    tests item by item which of two runs is better. With --calibrate it takes pictures in place of benchmarks, and
    finds the thresholds of instruction optimization for a model that nobody has measured.
    `accelerate launch -m vlinstruct evaluate ...` or torchrun share the items; the records are the same for any number.

    \b
    vlinstruct evaluate mini --limit 50 -o evaluation
    vlinstruct evaluate --compare evaluation other
    """
    names = benchmarks or []
    if calibration.calibrate:
        kept = ("data", "max_pixels", "allow_truncated")
        others = [field.name for field in fields(reading) if field.name not in kept]
        refuse_idle(reading, Idle(names=others, why=_WITH_CALIBRATE))
        refuse_idle(answering, why=_WITH_CALIBRATE)
        refuse_idle(thresholds, why="with --calibrate, which finds it")
        own: dict[str, object] = {
            "--ablation": ablation,
            "--seed": seed,
            "--overwrite": overwrite,
            "--against": against,
        }
        own |= {"--output": output != _OUTPUT, "a second --adapter": len(adapter or ()) > 1, "--report": report}
        own |= {"--compare": compare}
        _refuse_typed(own, _WITH_CALIBRATE)
        from vlinstruct.cli.evaluate_calibrate import run_calibration

        run_calibration(
            names,
            ModelSettings(
                backbone=backbone,
                adapter=adapter[0] if adapter else None,
                device=device,
                dtype=dtype,
                quantize=quantize,
                image_size=image_size,
                think=think,
                offline=common.offline,
                server=common.server_settings(),
            ),
            reading=reading,
            options=calibration,
            batch_size=batch_size,
            as_json=common.as_json,
            talk=Talk(quiet=common.quiet),
        )
        return
    if compare is not None:
        for options in (reading, answering, thresholds):
            refuse_idle(options, why=_WITH_COMPARE)
        own = {" ".join(names): names, "--ablation": ablation, "--against": against}
        # A backbone may come from the environment, where nobody typed it.
        own |= {"--adapter": adapter, "--quantize": quantize, "--image-size": image_size, "--think": think}
        _refuse_typed(own, _WITH_COMPARE)
        from vlinstruct.cli.evaluate_output import run_comparison

        run_comparison(
            *compare,
            seed=seed,
            outputs=[path for path in (output, report) if path is not None and path != _OUTPUT],
            overwrite=overwrite,
            as_json=common.as_json,
            talk=Talk(quiet=common.quiet),
        )
        return
    if reading.list_:
        show_list(names, common.as_json)
        return
    if reading.check_data:
        show_checked(names, reading, common.as_json)
        return
    from vlinstruct.evaluation.evaluate import evaluate as evaluate_benchmarks
    from vlinstruct.evaluation.selection import EvaluationSettings
    from vlinstruct.training.devices import launched

    # Of several processes the first one talks; the others compute in silence.
    rank, _ = launched()
    talk = Talk(quiet=common.quiet or rank > 0)

    def on_table(evaluation: Evaluation) -> None:
        talk.done(f"report: {evaluation.page if report is None else report}")
        if common.as_json:
            show_json(evaluation.as_record())
        else:
            show_blocks(evaluation.blocks())
        if evaluation.comparison is not None:
            if not common.as_json:
                show_report("")
            show_comparison(evaluation.comparison, common.as_json)

    with talk.listening():
        evaluations = evaluate_benchmarks(
            names,
            backbone=backbone,
            adapter=adapter,
            data=reading.data,
            limit=reading.limit,
            output=output,
            against=against,
            report=report,
            settings=EvaluationSettings(
                ablation=ablation,
                split=reading.split,
                seed=seed,
                ocr=reading.ocr,
                ocr_tokens=not reading.no_ocr_tokens,
                skip_images=reading.skip_images,
                overwrite=overwrite,
                max_pixels=reading.max_pixels,
                allow_truncated=reading.allow_truncated,
                batch_size=batch_size,
                num_beams=answering.num_beams,
                max_new_tokens=answering.max_new_tokens,
                repetition_penalty=answering.repetition_penalty,
                vqa_normalizer=answering.vqa_normalizer,
                device=device,
                dtype=dtype,
                quantize=quantize,
                image_size=image_size,
                think=think,
                offline=common.offline,
                server=common.server_settings(),
                **asdict(thresholds),
            ),
            progress=partial(progress, quiet=talk.quiet),
            notify=talk.notice,
            on_table=on_table,
        )
    num_skipped = sum(evaluation.num_skipped for evaluation in evaluations)
    if num_skipped and reading.skip_images is None:
        raise BatchError(f"{num_skipped} items were left out, which cannot be read", advice="The records say why.")


def _refuse_typed(are_typed: Mapping[str, object], why: str) -> None:
    for option, is_typed in are_typed.items():
        if is_typed:
            raise UsageError(f"{option} changes nothing {why}", advice="Leave it out.")
