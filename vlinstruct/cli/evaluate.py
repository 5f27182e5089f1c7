"""`vlinstruct evaluate`: does instruction optimization help, does CMAA, by how much and with what certainty."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlinstruct.cli.evaluate_output import show_checked, show_differences, show_json, show_list
from vlinstruct.cli.options import BackboneOption, DeviceOption, Dtype, QuantizeOption
from vlinstruct.cli.terminal import Talk, progress, show
from vlinstruct.errors import UsageError

if TYPE_CHECKING:
    from vlinstruct.evaluation.benchmarks.ocr_tokens import Ocr
    from vlinstruct.evaluation.benchmarks.rows import Row
    from vlinstruct.evaluation.benchmarks.selection import Selection
    from vlinstruct.evaluation.parts import Processes
    from vlinstruct.evaluation.runner import Contender
    from vlinstruct.evaluation.table import Table
    from vlinstruct.metrics.vqa_accuracy import Normalizer

_PAGE_FILE, _CHART_FILE, _OCR_FOLDER = "report.html", "chart.svg", "ocr"
_COMPARED = ("vqa_normalizer", "caption_tokenizer")  # facts on how texts were compared


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What all tables of a command have in common."""

    backbone: str
    settings: dict[str, Any]
    batch_size: int
    seed: int
    normalizer: Normalizer
    as_json: bool
    talk: Talk
    processes: Processes


def evaluate(
    benchmarks: Annotated[
        list[str] | None,
        typer.Argument(metavar="BENCHMARK...", help="gqa, textvqa, ... (--list); mini, or a task of it: mini/gqa."),
    ] = None,
    *,
    data: Annotated[
        Path | None,
        typer.Option(help="The official benchmarks' files or parquet copies: DIR/gqa, DIR/textvqa, ...", metavar="DIR"),
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the official benchmarks and their files.")] = False,
    check_data: Annotated[bool, typer.Option("--check-data", help="List what is wrong with --data, and stop.")] = False,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Without and with each --adapter; mini's are its projection and EMA.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=2, max=100_000, help="The first so many items of each.", show_default="all; 500 of mini's"),
    ] = None,
    split: Annotated[Literal["dev", "test"], typer.Option(help="Which part of mini's world.")] = "test",
    ocr: Annotated[
        bool,
        typer.Option("--ocr", help="Read pictures that textvqa's files have no OCR tokens of (needs vlinstruct[ocr])."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of mini's items and the resamples.")] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder of the records; an earlier run is gone on with.")
    ] = Path("evaluation"),
    against: Annotated[
        Path | None,
        typer.Option(
            help="Another run's --output: tell where its records differ, and what was nearly a tie.", metavar="DIR"
        ),
    ] = None,
    backbone: BackboneOption = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="Trained alignment layers: a folder, or mini-ema; with --ablation several times."),
    ] = None,
    device: DeviceOption = "auto",
    dtype: Annotated[Dtype, typer.Option(help="What the model computes in.")] = "auto",
    quantize: QuantizeOption = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Items that go through the model together.")] = 16,
    num_beams: Annotated[
        int | None, typer.Option(help="Beams of the search for an answer.", show_default="the benchmark's own")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of an answer.", show_default="the benchmark's own")
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(help="Above 1: tokens that an answer has are less likely; LAVIS has 1.5.", show_default="1"),
    ] = None,
    vqa_normalizer: Annotated[
        Literal["official", "lavis", "evalai"],
        typer.Option(help="How VQA accuracy compares: VQA v2.0's code, LAVIS' or lmms-eval's."),
    ] = "official",
    as_json: Annotated[bool, typer.Option("--json", help="Print records as JSON.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Open no connection; use what is cached.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notices, no progress.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
) -> None:
    """Measure a model on benchmarks, plain and optimized.

    The records of every item are kept, with the instructions, their IAS, the answers and the reasons, and a report is
    drawn with a dozen cases to look at. The ten official benchmarks are read from the files that their authors publish,
    or from the hub's parquet copies (--list).
    `accelerate launch -m vlinstruct evaluate ...` or torchrun share the items; the records are the same for any number.
    """
    from vlinstruct.backends.registry import default_backbone
    from vlinstruct.evaluation.benchmarks.rows import rows
    from vlinstruct.evaluation.benchmarks.selection import Options, kinds, require_ocr_tokens, select

    names = benchmarks or []
    if listing:
        show_list(names, as_json)
        return
    if not names:
        raise UsageError("name a benchmark: mini, or an official one (--list).")
    if ocr:
        require_ocr_tokens(names)
    if check_data:
        show_checked(names, data, as_json, ocr=ocr)
        return
    name = backbone or default_backbone()
    of_kind = {kind: rows(kind, ablation=ablation, adapters=adapter or [], backbone=name) for kind in kinds(names)}
    processes, device = _processes(device)
    settings = {"device": device, "dtype": dtype, "quantize": quantize, "offline": offline}
    talk = Talk(quiet=quiet or processes.rank > 0)
    run = _Run(
        backbone=name,
        settings=settings,
        batch_size=batch_size,
        seed=seed,
        normalizer=vqa_normalizer,
        as_json=as_json,
        talk=talk,
        processes=processes,
    )
    options = Options(
        data=data,
        split=split,
        seed=seed,
        limit=limit,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        repetition_penalty=repetition_penalty,
        ocr=_ocr(output / "official" if len(of_kind) > 1 else output, processes, talk) if ocr else None,
    )
    selections = list(select(names, options))
    others = _others(against, [one.kind for one in selections])
    for selection in selections:
        folder = output / selection.kind if len(selections) > 1 else output
        _measure(selection, of_kind[selection.kind], folder, run)
        if selection.kind in others and processes.rank == 0:
            show_differences(folder, others[selection.kind], as_json)


def _ocr(output: Path, processes: Processes, talk: Talk) -> Ocr:
    """Returns what reads pictures, and keeps it in the output folder.

    Raises:
        ResourceError: the library is not installed.
    """
    from vlinstruct.evaluation.benchmarks.ocr_tokens import Ocr
    from vlinstruct.media.ocr import ocr_library, ocr_tokens, require_ocr

    require_ocr()
    return Ocr(
        read=ocr_tokens,
        library=ocr_library(),
        folder=output / _OCR_FOLDER,
        processes=processes,
        progress=partial(progress, quiet=talk.quiet),
        notify=talk.notice,
    )


def _processes(device: str) -> tuple[Processes, str]:
    """Returns the processes that torchrun or accelerate launched, and where this one computes."""
    from vlinstruct.evaluation.parts import ALONE, Processes

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE, device
    from vlinstruct.training.devices import Devices

    devices = Devices(cpu=device == "cpu")
    return Processes(rank=devices.rank, count=devices.num_processes, wait=devices.wait), devices.device(device)


def _measure(selection: Selection, rows: Sequence[Row], folder: Path, run: _Run) -> None:
    """Answers everything, and prints the table."""
    from vlinstruct.evaluation.cases import draw_cases
    from vlinstruct.evaluation.chart import as_svg
    from vlinstruct.evaluation.page import as_html
    from vlinstruct.evaluation.runner import run as answer_all
    from vlinstruct.evaluation.table import read_records, read_table
    from vlinstruct.evaluation.versions import versions
    from vlinstruct.files import written_atomically

    for notice in selection.notices:
        run.talk.notice(notice)
    models = [_model(row, run.backbone, run.settings) for row in rows]
    folder.mkdir(parents=True, exist_ok=True)
    every_item = [item for items in selection.items.values() for item in items]
    total = len(models) * sum(len(item.instructions) for item in every_item)
    with run.talk.listening(), progress(total, quiet=run.talk.quiet) as advance:
        answer_all(
            models,
            selection.items,
            folder,
            batch_size=run.batch_size,
            generation=selection.generation,
            facts={"seed": run.seed, "versions": versions(), **_revision(run)},
            processes=run.processes,
            on_item=advance,
            notify=run.talk.notice,
        )
    if run.processes.rank > 0:
        return
    names = [model.name for model in models]
    table = read_table(folder, selection.tasks, names, seed=run.seed, normalizer=run.normalizer, notify=run.talk.notice)
    split = selection.facts.get("split", selection.kind)
    facts = {"id": f"{run.backbone}/{split}", "backbone": run.backbone, **selection.facts}
    if any(task.metric == "vqa_accuracy" for task in selection.tasks):
        facts["vqa_normalizer"] = run.normalizer
    if table.caption_tokenizer is not None:
        facts["caption_tokenizer"] = table.caption_tokenizer
    cases = draw_cases(read_records(folder), every_item, model=models[-1].name, seed=run.seed)
    for name, content in ((_PAGE_FILE, as_html(table, cases, facts)), (_CHART_FILE, as_svg(table))):
        with written_atomically(folder / name) as path:
            path.write_text(content, encoding="utf-8")
    run.talk.done(f"report: {folder / _PAGE_FILE}")
    _show_table(table, selection, facts, run)


def _show_table(table: Table, selection: Selection, facts: dict[str, Any], run: _Run) -> None:
    """Prints the table, with what the paper has of it."""
    from dataclasses import asdict

    from vlinstruct.backends.registry import known_as
    from vlinstruct.evaluation.published import as_lines, published
    from vlinstruct.evaluation.report import as_record, as_text
    from vlinstruct.evaluation.table import Cell

    known = known_as(run.backbone, offline=run.settings["offline"])
    figures = published(known, [task.name for task in selection.tasks]) if selection.kind == "official" else {}
    if run.as_json:
        generation = {name: asdict(one) for name, one in selection.generation.items()}
        record = as_record(table, {**facts, "generation": generation})
        show_json({**record, "published": {name: asdict(one) for name, one in figures.items()}})
        return
    plain = {
        name: {model: table.task_score(Cell(model, "canonical", "plain"), name).value for model in table.models}
        for name in figures
    }
    compared = [f"{name.replace('_', ' ')}: {facts[name]}" for name in _COMPARED if name in facts]
    blocks = [[as_text(table)], compared, as_lines(figures, plain) if figures else []]
    show("\n\n".join("\n".join(block) for block in blocks if block))


def _revision(run: _Run) -> dict[str, str]:
    from vlinstruct.backends.registry import locate
    from vlinstruct.weights.hub_cache import revision_of

    found = revision_of(locate(run.backbone, offline=run.settings["offline"]))
    return {} if found is None else {"revision": found}


def _others(against: Path | None, kinds: Sequence[str]) -> dict[str, Path]:
    """Returns the folder of the other run by kind; one that is none is better refused now than after all answers."""
    if against is None:
        return {}
    from vlinstruct.evaluation.differences import other_records

    folders = {kind: against / kind if len(kinds) > 1 else against for kind in kinds}
    for folder in folders.values():
        other_records(folder)
    return folders


def _model(row: Row, backbone: str, settings: dict[str, Any]) -> Contender:
    """Returns what runs for a row of the table.

    Args:
        row: its name and its adapter.
        backbone: what is loaded.
        settings: the rest of what `vlinstruct.load` takes.
    """
    from vlinstruct.backends.instructblip.adapter import read_adapter_config
    from vlinstruct.backends.registry import locate
    from vlinstruct.evaluation.runner import Contender
    from vlinstruct.model import load
    from vlinstruct.weights.safetensors_files import fingerprint

    offline = settings["offline"]
    weights = "/".join([fingerprint(locate(backbone, offline=offline)), settings["dtype"], str(settings["quantize"])])
    if row.adapter is not None:
        weights += read_adapter_config(locate(row.adapter, offline=offline, what="adapter")).sha256
    return Contender(
        name=row.name,
        fingerprint=weights,
        load=lambda: load(backbone, adapter=row.adapter, **settings),
    )
