"""`vlinstruct bench`: speed here, of answers or of training, beside plain transformers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from vlinstruct.cli.command import MODEL, takes
from vlinstruct.cli.options import (
    CompileOption,
    DeviceOption,
    Dtype,
    LocalBackboneOption,
    OfflineOption,
    PrintOptions,
)
from vlinstruct.cli.terminal import Talk, show_record, show_report
from vlinstruct.errors import InputError, UsageError

_COLD_RUNS = 3


@takes(PrintOptions)
def bench(
    *,
    backbone: LocalBackboneOption = None,
    device: DeviceOption = "auto",
    dtype: Annotated[Dtype, typer.Option(help="What the models compute in.", rich_help_panel=MODEL)] = "auto",
    training: Annotated[
        bool, typer.Option("--training", help="Measure finetune, beside a plain training loop, in place of answers.")
    ] = False,
    candidates: Annotated[
        int | None, typer.Option(min=2, max=100_000, help="Measure ranking so many candidates, in place of answers.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Measure what -O costs on the questions of a file, as ask --data takes it.")
    ] = None,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=1024,
            help="Pictures asked about together; may be given several times. In training one: samples of an update.",
            show_default="1, in training 8",
        ),
    ] = None,
    acceptance: Annotated[
        list[float] | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of the tokens of instructions that drafts give; may be given several times.",
            show_default="0, what mini reaches, and 1",
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=2, max=10_000, help="Runs of every arm, in turns; in training epochs.")] = 9,
    cold_runs: Annotated[
        int | None,
        typer.Option(
            min=0, max=1000, help="Starts of every cold process, 2 or more; 0 for none.", show_default=str(_COLD_RUNS)
        ),
    ] = None,
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights",
            help="The backbone's shapes with random weights; no download, no cold start.",
            rich_help_panel=MODEL,
        ),
    ] = False,
    compile: CompileOption = False,
    against: Annotated[
        Path | None, typer.Option(help="Say what is slower than in this file, which an earlier bench --json printed.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the comparisons into this file (.png, .svg, .pdf).")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; torch's own choice if not given.", rich_help_panel=MODEL)
    ] = None,
    offline: OfflineOption = False,
    printing: PrintOptions,
) -> None:
    """Measure speed beside plain transformers.

    Answers are measured, plain and optimized, or training, or ranking; both have the same weights and tokens. Peak
    memory is told on an accelerator, and of cold starts. --json prints every run's seconds.

    \b
    vlinstruct bench --runs 5 --plot speed.png
    vlinstruct bench --batch-size 1 --batch-size 8 --batch-size 64
    vlinstruct bench --json > before.json; vlinstruct bench --against before.json
    """
    from vlinstruct.bench.against import changes, read_measurement, require_shared
    from vlinstruct.bench.answers import require_plots, save_plot
    from vlinstruct.bench.bench import BenchSettings
    from vlinstruct.bench.bench import bench as measure
    from vlinstruct.cli.run import collect_garbage_from_here

    if cold_runs == 1:
        raise UsageError("--cold-runs takes 2 or more, for a spread, or 0 for none.")
    # An option that has no effect is refused, not ignored.
    if training or candidates or data:
        only_answers = {"--acceptance": acceptance, "--plot": plot, "--cold-runs": cold_runs}
        only_answers |= {"--compile": (training or candidates) and compile}
        not_both = {"--training, --candidates and --data together": sum(map(bool, (training, candidates, data))) > 1}
        refused = {**only_answers, **not_both, "--batch-size": (candidates or data) and batch_size}
        names = [name for name, value in refused.items() if value]
        if names:
            what = "--training" if training else "--candidates" if candidates else "--data"
            raise UsageError(f"{', '.join(names)}: not available with {what}", advice="Leave it out.")
    if plot is not None:
        require_plots(plot)
    batch_sizes = tuple(dict.fromkeys(batch_size or ()))
    earlier = None if against is None else read_measurement(against)
    if against is not None and earlier is not None and not training:
        require_shared(earlier, against, batch_sizes=batch_sizes or (1,), acceptance=acceptance or ())
    settings = BenchSettings(
        backbone=backbone,
        device=device,
        dtype=dtype,
        training=training,
        num_candidates=candidates,
        data=data,
        batch_sizes=batch_sizes,
        acceptance=acceptance or (),
        runs=runs,
        cold_runs=cold_runs,
        compile=compile,
        random_weights=random_weights,
        threads=threads,
        offline=offline,
    )
    with Talk(quiet=False).listening(logging.INFO):  # a line before each workload: a bar would take time of its own
        measurement = measure(settings, on_loaded=collect_garbage_from_here)
    if plot is not None:
        save_plot(measurement.comparisons, plot)
    record, table, mismatch = dict(measurement.record), measurement.table, None
    if against is not None and earlier is not None:
        try:
            changed = changes(record, earlier, against)
            record, table = {**record, "against": changed.as_record()}, f"{table}\n\n{changed.as_table()}"
        except InputError as error:  # after what took minutes to measure
            mismatch = error
    if printing.as_json:
        show_record(record)
    else:
        show_report(table)
    if mismatch is not None:
        raise mismatch
