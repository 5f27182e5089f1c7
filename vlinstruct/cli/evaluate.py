"""`vlinstruct evaluate`: does instruction optimization help, does CMAA, by how much and with what certainty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlinstruct.cli.options import BackboneOption, DeviceOption, Dtype, QuantizeOption
from vlinstruct.cli.terminal import Talk, progress, show
from vlinstruct.errors import UsageError

if TYPE_CHECKING:
    from vlinstruct.evaluation.item import Task
    from vlinstruct.evaluation.runner import Model

_PAGE_FILE = "report.html"
_ROWS: tuple[tuple[str, str | None], ...] = (("vanilla", None), ("projection", "mini-projection"), ("EMA", "mini-ema"))


def evaluate(
    benchmarks: Annotated[list[str], typer.Argument(metavar="BENCHMARK...", help="mini, or a task of it: mini/gqa.")],
    *,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="mini without and with its tuned projection, and with EMA.")
    ] = False,
    limit: Annotated[int, typer.Option(min=2, max=100_000, help="Items of each task.")] = 500,
    split: Annotated[Literal["dev", "test"], typer.Option(help="Which part of mini's world.")] = "test",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the items and the resamples.")] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder of the records; an earlier run is gone on with.")
    ] = Path("evaluation"),
    backbone: BackboneOption = None,
    adapter: Annotated[str | None, typer.Option(help="Trained alignment layers: a folder, or mini-ema.")] = None,
    device: DeviceOption = "auto",
    dtype: Annotated[Dtype, typer.Option(help="What the model computes in.")] = "auto",
    quantize: QuantizeOption = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Items that go through the model together.")] = 16,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.")] = 48,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Open no connection; use what is cached.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notices, no progress.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
) -> None:
    """Measure a model on tasks, asked in canonical, paraphrased and poor words, with and without optimization.

    The records of every item are kept, with the instructions, their IAS, the answers and the reasons, and a report is
    drawn with a dozen cases to look at.
    """
    from vlinstruct.checkpoints.atomic import written_atomically
    from vlinstruct.checkpoints.registry import default_backbone
    from vlinstruct.config import GenerationConfig
    from vlinstruct.evaluation.benchmarks.mini import items
    from vlinstruct.evaluation.cases import draw_cases
    from vlinstruct.evaluation.item import WORDS
    from vlinstruct.evaluation.page import as_html
    from vlinstruct.evaluation.report import as_record, as_text
    from vlinstruct.evaluation.runner import run
    from vlinstruct.evaluation.table import read_records, read_table

    if ablation and adapter is not None:
        raise UsageError("--ablation has adapters of its own: leave --adapter out.")
    generation = GenerationConfig(max_new_tokens=max_new_tokens)
    tasks = _tasks(benchmarks)
    name = backbone or default_backbone()
    rows = _ROWS if ablation else ((adapter or "vanilla", adapter),)
    settings = {"device": device, "dtype": dtype, "quantize": quantize, "offline": offline}
    models = [_model(row, name, one, settings) for row, one in rows]
    sets = {task.name: items(task, limit, split=split, seed=seed) for task in tasks}
    output.mkdir(parents=True, exist_ok=True)
    talk = Talk(quiet=quiet)
    total = len(models) * len(WORDS) * len(tasks) * limit
    with progress(total, quiet=quiet) as advance:
        run(
            models,
            sets,
            output,
            batch_size=batch_size,
            generation=dict.fromkeys(sets, generation),
            on_item=advance,
            notify=talk.notice,
        )
    table = read_table(output, tasks, [model.name for model in models], seed=seed)
    facts = {"id": f"{name}/{split}", "backbone": name, "split": split, "seed": seed, "items_per_task": limit}
    every_item = [item for task in sets.values() for item in task]
    cases = draw_cases(read_records(output), every_item, model=models[-1].name, seed=seed)
    with written_atomically(output / _PAGE_FILE) as path:
        path.write_text(as_html(table, cases, facts), encoding="utf-8")
    talk.done(f"report: {output / _PAGE_FILE}")
    if as_json:
        _print_json(as_record(table, facts))
    else:
        show(as_text(table))


def _tasks(benchmarks: Sequence[str]) -> list[Task]:
    """Returns the tasks that were named, in mini's order."""
    from vlinstruct.evaluation.benchmarks.mini import TASKS

    known = {f"mini/{task.name}": task for task in TASKS}
    unknown = [name for name in benchmarks if name != "mini" and name not in known]
    if unknown:
        raise UsageError(f"unknown benchmark {unknown[0]!r}: known are mini, {', '.join(known)}.")
    return [task for name, task in known.items() if "mini" in benchmarks or name in benchmarks]


def _model(row: str, backbone: str, adapter: str | None, settings: dict[str, Any]) -> Model:
    """Returns a row of the table.

    Args:
        row: what it is called.
        backbone: what is loaded.
        adapter: what is put onto it.
        settings: the rest of what `vlinstruct.load` takes.
    """
    from vlinstruct.checkpoints.adapter import read_adapter_config
    from vlinstruct.checkpoints.registry import locate
    from vlinstruct.checkpoints.safetensors_files import fingerprint
    from vlinstruct.evaluation.runner import Model
    from vlinstruct.pipeline import load

    offline = settings["offline"]
    weights = "/".join([fingerprint(locate(backbone, offline=offline)), settings["dtype"], str(settings["quantize"])])
    if adapter is not None:
        weights += read_adapter_config(locate(adapter, offline=offline, what="adapter")).sha256
    return Model(
        name=row,
        fingerprint=weights,
        load=lambda: load(backbone, adapter=adapter, **settings),
    )


def _print_json(record: dict[str, Any]) -> None:
    from vlinstruct.data.records import json_line

    show(json_line(record).decode().rstrip("\n"))
