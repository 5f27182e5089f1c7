"""`vlinstruct bench`: speed here, of answers or of training, beside plain transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlinstruct.cli.options import MODEL, BackboneOption, DeviceOption, Dtype, OfflineOption, PrintOptions, takes
from vlinstruct.cli.terminal import show, show_record
from vlinstruct.errors import UsageError

if TYPE_CHECKING:
    from vlinstruct.model import Model

_ANSWERS_OF = (2, 15)
_ITEMS = 60
_COLD_RUNS = 3
_TRAINING_BATCH = 8


@takes(PrintOptions)
def bench(
    *,
    backbone: BackboneOption = None,
    device: DeviceOption = "auto",
    dtype: Annotated[Dtype, typer.Option(help="What the models compute in.", rich_help_panel=MODEL)] = "auto",
    training: Annotated[
        bool, typer.Option("--training", help="Measure finetune, beside a plain training loop, in place of answers.")
    ] = False,
    candidates: Annotated[
        int | None, typer.Option(min=2, max=100_000, help="Measure ranking so many candidates, in place of answers.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            help="Pictures that are asked about together; samples of an update.",
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
    plot: Annotated[Path | None, typer.Option(help="Draw the comparisons into this file (.png, .svg, .pdf).")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; torch's own choice if not given.", rich_help_panel=MODEL)
    ] = None,
    offline: OfflineOption = False,
    printing: PrintOptions,
) -> None:
    """Measure speed beside plain transformers.

    Answers are measured, plain and optimized, or training, or ranking; both have the same weights and tokens. --json
    prints every run's seconds.
    """
    from vlinstruct.backends.registry import default_backbone, find
    from vlinstruct.bench import Workload, as_record, as_table, compare
    from vlinstruct.bench.acceptance import measured_acceptance
    from vlinstruct.bench.cold_start import cold_starts
    from vlinstruct.bench.environment import environment
    from vlinstruct.bench.load import load_both, use_threads
    from vlinstruct.bench.plot import require_plots, save_plot
    from vlinstruct.bench.random_weights import load_both_random
    from vlinstruct.cli.run import collect_garbage_from_here

    if cold_runs == 1:
        raise UsageError("--cold-runs takes 2 or more, for a spread, or 0 for none.")
    if training or candidates:
        of_answers = {"--acceptance": acceptance, "--plot": plot, "--cold-runs": cold_runs}
        of_both = {"--training and --candidates together": training and candidates}
        what = "--training" if training else "--candidates"
        _refuse({**of_answers, **of_both, "--batch-size": candidates and batch_size}, what)
    if plot is not None:
        require_plots(plot)
    use_threads(threads)
    name = backbone or default_backbone()
    identity = None if random_weights else find(name, offline=offline)
    if random_weights:
        pipeline, theirs = load_both_random(name, device=device, dtype=dtype)
    else:
        pipeline, theirs = load_both(identity, device=device, dtype=dtype, offline=offline)
    collect_garbage_from_here()
    if training:
        table, record = _training(name, pipeline, theirs, batch_size=batch_size or _TRAINING_BATCH, runs=runs)
        _print(table, record, as_json=printing.as_json)
        return
    if candidates:
        table, record = _ranking(name, pipeline, theirs, candidates=candidates, runs=runs)
        _print(table, record, as_json=printing.as_json)
        return
    shares = acceptance or [0.0, measured_acceptance(_ITEMS), 1.0]
    workloads = [
        Workload(answer_tokens=answer_tokens, batch=batch_size or 1, acceptance=share)
        for answer_tokens in _ANSWERS_OF
        for share in shares
    ]
    compared = compare(pipeline, theirs, workloads, runs)
    starts = _COLD_RUNS if cold_runs is None else cold_runs
    folder = None if identity is None else identity.folder
    cold = cold_starts(folder, starts) if starts and folder is not None else ()
    record = as_record(name, compared, cold, environment(pipeline.backend))
    _print(as_table(compared, cold), record, as_json=printing.as_json)
    if plot is not None:
        save_plot(compared, plot)


def _print(table: str, record: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_record(record)
    else:
        show(table)


def _refuse(given: Mapping[str, object], what: str) -> None:
    names = [name for name, value in given.items() if value]
    if names:
        raise UsageError(f"{', '.join(names)}: nothing that {what} measures", advice="Leave it out.")


def _ranking(name: str, pipeline: Model, theirs: Any, *, candidates: int, runs: int) -> tuple[str, dict[str, Any]]:
    """Returns the table and the record."""
    from vlinstruct.bench.environment import environment
    from vlinstruct.bench.ranking import compare_ranking, ranking_record, ranking_table

    compared = compare_ranking(pipeline, theirs, candidates, runs)
    return ranking_table(compared), ranking_record(name, compared, environment(pipeline.backend))


def _training(name: str, pipeline: Model, theirs: Any, *, batch_size: int, runs: int) -> tuple[str, dict[str, Any]]:
    """Returns the table and the record."""
    from vlinstruct.bench.environment import environment
    from vlinstruct.bench.training import compare_training
    from vlinstruct.bench.training_report import training_record, training_table
    from vlinstruct.bench.training_workload import training_workloads

    compared = compare_training(pipeline.backend, theirs, training_workloads(batch_size), runs)
    return training_table(compared), training_record(name, compared, environment(pipeline.backend))
