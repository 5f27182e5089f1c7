"""`vlinstruct bench`: speed here, beside plain transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlinstruct.cli.options import BackboneOption, DeviceOption, Dtype
from vlinstruct.cli.terminal import show
from vlinstruct.errors import UsageError

_ANSWERS_OF = (2, 15)
_ITEMS = 60


def bench(
    *,
    backbone: BackboneOption = None,
    device: DeviceOption = "auto",
    dtype: Annotated[Dtype, typer.Option(help="What the models compute in.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Pictures that are asked about together.")] = 1,
    acceptance: Annotated[
        list[float] | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of the tokens of instructions that drafts give; may be given several times.",
            show_default="0, what mini reaches, and 1",
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=2, max=10_000, help="Runs of every arm, in turns.")] = 9,
    cold_runs: Annotated[
        int, typer.Option(min=0, max=1000, help="Starts of every cold process, 2 or more; 0 for none.")
    ] = 3,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="The backbone's shapes with random weights; no download, no cold start."),
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the comparisons into this file (.png, .svg, .pdf).")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; torch's own choice if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every run's seconds as JSON.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Open no connection; use what is cached.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
) -> None:
    """Measure plain and optimized answers beside transformers: same weights, same tokens, in turns."""
    from vlinstruct.bench import Workload, as_record, as_table, compare
    from vlinstruct.bench.acceptance import measured_acceptance
    from vlinstruct.bench.cold_start import cold_starts
    from vlinstruct.bench.environment import environment
    from vlinstruct.bench.load import load_both, use_threads
    from vlinstruct.bench.plot import require_plots, save_plot
    from vlinstruct.bench.random_weights import load_both_random
    from vlinstruct.checkpoints.registry import default_backbone, locate
    from vlinstruct.cli.run import collect_garbage_from_here
    from vlinstruct.data.records import json_line

    if cold_runs == 1:
        raise UsageError("--cold-runs takes 2 or more, for a spread, or 0 for none.")
    if plot is not None:
        require_plots(plot)
    use_threads(threads)
    name = backbone or default_backbone()
    if random_weights:
        pipeline, theirs = load_both_random(name, device=device, dtype=dtype)
    else:
        pipeline, theirs = load_both(name, device=device, dtype=dtype, offline=offline)
    collect_garbage_from_here()
    shares = acceptance or [0.0, measured_acceptance(_ITEMS), 1.0]
    workloads = [
        Workload(answer_tokens=answer_tokens, batch=batch_size, acceptance=share)
        for answer_tokens in _ANSWERS_OF
        for share in shares
    ]
    compared = compare(pipeline, theirs, workloads, runs)
    cold = cold_starts(locate(name, offline=offline), cold_runs) if cold_runs and not random_weights else ()
    if as_json:
        record = as_record(name, compared, cold, environment(pipeline.model))
        show(json_line(record).decode().rstrip("\n"))
    else:
        show(as_table(compared, cold))
    if plot is not None:
        save_plot(compared, plot)
