"""The verb: benchmarks by name -> records of every item, a table with its intervals, and a report to look at.

    for evaluation in evaluate("mini", limit=20, output="runs/mini"):
        print(evaluation)

FOLDER/  records.jsonl, times.jsonl   what `runner` writes
         results.json, results.md     the table as `--json` prints it, and all of its values as Markdown
         report.html, chart.svg       the table as a page and as a drawing
         ocr/                         tokens that annotations lacked, if they were read

Everything that can be refused is refused before a model is loaded: names, settings, files, the records to compare with.
Nothing is written, and nothing of an earlier run removed, before the model is.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Unpack

from vlinstruct.backends.instructblip.adapter import check_adapter
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.machine import require_machine
from vlinstruct.backends.registry import default_backbone, find, find_adapter, require_options, resolve
from vlinstruct.backends.server.address import is_url
from vlinstruct.errors import InputError, UsageError
from vlinstruct.evaluation.parts import ALONE, RECORDS_FILE, RESULTS_FILE, Processes
from vlinstruct.evaluation.reading.ocr_tokens import Ocr
from vlinstruct.evaluation.report.cases import sample_cases
from vlinstruct.evaluation.report.chart import as_svg
from vlinstruct.evaluation.report.columns import read_records
from vlinstruct.evaluation.report.comparison import Comparison, Run, compare, read_run
from vlinstruct.evaluation.report.markdown import as_markdown
from vlinstruct.evaluation.report.page import as_html
from vlinstruct.evaluation.report.published import Published, as_block, published
from vlinstruct.evaluation.report.table import Cell, Table, read_table
from vlinstruct.evaluation.report.text import Block, as_record, as_text, table_blocks, without_nan
from vlinstruct.evaluation.runner import Contender, run
from vlinstruct.evaluation.selection import (
    Collection,
    EvaluationOptions,
    EvaluationSettings,
    Selection,
    adapters_by_row,
    collections_of,
    for_chat_models,
    require_names,
    select,
)
from vlinstruct.files import PathLike, written_atomically
from vlinstruct.media import ocr as media_ocr
from vlinstruct.model import load
from vlinstruct.report.page import check_report
from vlinstruct.settings import GenerationSettings, Thresholds, takes_options
from vlinstruct.training.devices import Devices, launched
from vlinstruct.values import Identity
from vlinstruct.weights.fingerprint import adapter_fingerprint

_MARKDOWN_FILE, _PAGE_FILE, _CHART_FILE, _OCR_FOLDER = "results.md", "report.html", "chart.svg", "ocr"
# Facts on what was asked and how texts were compared: under others the figures are others, so the table prints them.
_PRINTED_FACTS = (
    *(
        "prompts",
        "think",
        "image_size",
        "ocr_tokens",
        "items_without_ocr_tokens",
        "vqa_normalizer",
        "caption_tokenizer",
    ),
    *("least_certainty", "max_cross_nll", "sure_above"),
)
# What else figures depend on; the rest of the settings is a fact of the table, or says where and how fast.
_RECORDED_SETTINGS = (
    *("ablation", "batch_size", "dtype", "quantize", "num_beams", "max_new_tokens", "repetition_penalty"),
    *("skip_images", "max_pixels", "allow_truncated", "think"),
)
DEFAULT_SETTINGS = EvaluationSettings()
# They decide about the last decimals of a score, so that every record says them.
_PACKAGES = ("vlinstruct", "torch", "tokenizers", "pillow")

Progress = Callable[[int], AbstractContextManager[Callable[[], None]]]
"""Takes how many items there are, and gives what is called after each."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One table, and the files behind it; as a text, what the command prints.

    Args:
        collection: mini's tasks or the official benchmarks.
        table: all scores with their intervals.
        facts: what they were measured on and with.
        settings: what else the evaluation was asked to do.
        thresholds: that the rules of choosing an instruction compared with.
        generation: how answers were generated, by task.
        published: what the paper has of them, by task; empty where it has not this backbone.
        folder: of the records and the report.
        comparison: with another run, where one was named.
    """

    collection: Collection
    table: Table
    facts: Mapping[str, Any]
    settings: EvaluationSettings
    thresholds: Thresholds
    generation: Mapping[str, GenerationSettings]
    published: Mapping[str, Published]
    folder: Path
    comparison: Comparison | None = None

    @property
    def records_file(self) -> Path:
        """A JSON line per item and kind of words: its instructions with their IAS and answers."""
        return self.folder / RECORDS_FILE

    @property
    def num_skipped(self) -> int:
        """How many items were left out because their pictures cannot be read."""
        return sum(size.num_skipped for size in self.table.sizes.values())

    @property
    def page(self) -> Path:
        """The report to look at, HTML with its pictures in it."""
        return self.folder / _PAGE_FILE

    def __repr__(self) -> str:
        num_items = sum(size.num_items for size in self.table.sizes.values())
        return f"<Evaluation of {', '.join(self.table.models)} on {', '.join(self.table.sizes)}: {num_items} items>"

    def __str__(self) -> str:
        return as_text(self.blocks())

    def blocks(self) -> Iterator[Block | str]:
        """Yields what people read: the table, the rules that its figures depend on, and what the paper published."""
        plain_scores = {
            name: {
                model: self.table.task_score(Cell(model, "canonical", "plain"), name).value
                for model in self.table.models
            }
            for name in self.published
        }
        rules = [f"{name.replace('_', ' ')}: {self.facts[name]}" for name in _PRINTED_FACTS if name in self.facts]
        yield from table_blocks(self.table)
        if rules:
            yield "\n".join(rules)
        if self.published:
            yield as_block(self.published, plain_scores)

    def as_record(self) -> dict[str, Any]:
        """Returns the table as one JSON object; a score that does not exist is NaN."""
        generation = {name: asdict(settings) for name, settings in self.generation.items()}
        record = as_record(self.table, {**self.facts, "generation": generation})
        settings = {name: value for name, value in asdict(self.settings).items() if name in _RECORDED_SETTINGS}
        return {
            **record,
            "settings": settings,
            "thresholds": asdict(self.thresholds),
            "versions": _versions(),
            "published": {name: asdict(figures) for name, figures in self.published.items()},
        }


@takes_options(EvaluationSettings)
def evaluate(
    benchmarks: str | Sequence[str],
    *,
    backbone: str | None = None,
    adapter: str | Sequence[str] | None = None,
    data: PathLike | None = None,
    limit: int | None = None,
    output: PathLike = "evaluation",
    against: PathLike | None = None,
    report: PathLike | None = None,
    settings: EvaluationSettings = DEFAULT_SETTINGS,
    progress: Progress = lambda count: nullcontext(lambda: None),
    notify: Callable[[str], None] = lambda notice: None,
    on_table: Callable[[Evaluation], None] = lambda evaluation: None,
    **options: Unpack[EvaluationOptions],
) -> list[Evaluation]:
    """Measures a model on benchmarks, plain and in every way to choose an instruction.

    Answers that an earlier run left in the folder are kept. What cannot be run is refused before a model is loaded.

    Args:
        benchmarks: `mini`, a task of it (`mini/gqa`), or official ones by name.
        backbone: a name, a folder, a hub id or a server's URL; None is `$VLINSTRUCT_BACKBONE`, or mini.
        adapter: trained alignment layers, by name or folder; several with `settings.ablation`.
        data: the folder of the official benchmarks' files, `DIR/gqa`, `DIR/textvqa` and so on.
        limit: the first so many items of each task, 2 at least; None takes all, and 500 of each of mini's.
        output: the folder of the records, or of a folder for each of the two tables.
        against: another run's `output`, to be compared with as `compare_evaluations` does.
        report: a further place for the page, of mini's tasks or of official benchmarks, not of both.
        settings: how it is done.
        progress: shows how far it is.
        notify: is told what a user should know.
        on_table: is given every table as soon as it is there, before the next one is begun.
        **options: fields of `EvaluationSettings`, in place of what `settings` says.

    Returns:
        mini's table, the official benchmarks', or both. Of several processes (torchrun, accelerate) the main one has
        them; the others share the work and return none.

    Raises:
        UsageError: an unknown name, or settings that contradict each other.
        InputError: the benchmarks' files or the folder's records cannot be used.
        CheckpointError: the model cannot be used.
        ResourceError: something cannot be written, or a library is missing.
    """
    settings = replace(settings, **options)
    names = [benchmarks] if isinstance(benchmarks, str) else list(benchmarks)
    adapters = [adapter] if isinstance(adapter, str) else list(adapter or ())
    backbone = backbone or default_backbone()
    output = Path(output)
    require_names(names, ocr=settings.ocr, ocr_tokens=settings.ocr_tokens)
    if limit is not None and limit < 2:
        raise UsageError(f"limit is {limit}: intervals need 2 items at least.")
    rows = {
        collection: adapters_by_row(collection, ablation=settings.ablation, adapters=adapters, backbone=backbone)
        for collection in collections_of(names)
    }
    if report is not None and len(rows) > 1:
        why = "mini's tasks and official benchmarks have a page each"
        raise UsageError.at("cannot write --report", report, why, "Evaluate them one after the other")
    if report is not None:
        check_report(Path(report))
    processes, settings = _launched(settings)
    if processes.rank > 0:  # one voice is enough
        progress, notify = (lambda count: nullcontext(lambda: None)), (lambda notice: None)

    # What costs nothing to find out comes before the files; only they come before what may be a download.
    nearest = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise InputError.at("cannot write to --output", nearest, "it is a file", "Name a folder", code="output_is_file")
    if not is_url(backbone):
        require_machine(settings.device, settings.dtype, settings.quantize)
        resolve(backbone)
    for row in {name for by_row in rows.values() for name in by_row.values() if name is not None}:
        require_options(backbone, adapter=row)
        resolve(row, what="adapter")

    @cache
    def settled() -> tuple[Identity, Mapping[Collection, Sequence[Contender]]]:
        """Finds the backbone and every row's adapter, once for both tables."""
        identity = find(backbone, offline=settings.offline)
        contenders = {
            collection: [_contender(name, adapter, identity, settings) for name, adapter in by_row.items()]
            for collection, by_row in rows.items()
        }
        return identity, contenders

    def folder_of(parent: Path, collection: Collection) -> Path:
        return parent / collection if len(rows) > 1 else parent

    ocr = None
    if settings.ocr:
        media_ocr.require_ocr()
        ocr = Ocr(
            read=media_ocr.ocr_tokens,
            library=media_ocr.ocr_library(),
            limits=settings.limits,
            folder=folder_of(output, "official") / _OCR_FOLDER,
            processes=processes,
            progress=progress,
            notify=notify,
            on_unread=settled,
        )
    data = None if data is None else Path(data)
    selections = list(select(names, data=data, limit=limit, settings=settings, ocr=ocr))
    if against is not None:
        for collection in rows:
            read_run(folder_of(Path(against), collection))  # better refused now than after all answers
    evaluations = []
    for selection in selections:
        folder = folder_of(output, selection.collection)
        for notice in selection.notices:
            notify(notice)
        identity, by_collection = settled()
        if identity.is_chat_model:
            selection = for_chat_models(selection, settings)
        contenders = by_collection[selection.collection]
        optional = {"revision": identity.revision, "image_size": settings.image_size}
        more_facts = {name: value for name, value in optional.items() if value is not None}
        num_answers = sum(len(item.instructions) for items in selection.items.values() for item in items)
        with progress(len(contenders) * num_answers) as advance:
            run(
                contenders,
                selection.items,
                folder,
                batch_size=settings.batch_size,
                generation=selection.generation,
                facts={"seed": settings.seed, "versions": _versions(), **more_facts},
                processes=processes,
                skip_images=settings.skip_images,
                overwrite=settings.overwrite,
                on_item=advance,
                notify=notify,
            )
        if processes.rank > 0:
            continue
        evaluation = _evaluation(
            selection, folder, [contender.name for contender in contenders], identity, settings, notify
        )
        if report is not None:
            with written_atomically(Path(report).resolve()) as path:
                shutil.copyfile(evaluation.page, path)
        if against is not None:
            other_run = read_run(folder_of(Path(against), selection.collection))
            ours = Run(folder=folder, results=evaluation.as_record(), records=read_records(folder))
            evaluation = replace(evaluation, comparison=compare(other_run, ours, seed=settings.seed, notify=notify))
        on_table(evaluation)
        evaluations.append(evaluation)
    return evaluations


def _launched(settings: EvaluationSettings) -> tuple[Processes, EvaluationSettings]:
    """Returns the processes that torchrun or accelerate launched, and the settings with where this one computes."""
    _, num_processes = launched()
    if num_processes == 1:
        return ALONE, settings
    devices = Devices(cpu=settings.device == "cpu")
    processes = Processes(rank=devices.rank, count=devices.num_processes, wait=devices.wait)
    return processes, replace(settings, device=devices.device(settings.device))


def _contender(name: str, adapter: str | None, identity: Identity, settings: EvaluationSettings) -> Contender:
    """Returns what runs for a row of the table."""
    # All that its answers depend on beside the item. The device is left out: a run can be resumed on another one.
    require_options(
        identity.name, identity.config, adapter=adapter, image_size=settings.image_size, think=settings.think
    )
    fingerprint = "/".join([identity.fingerprint, settings.dtype, str(settings.quantize)])
    if settings.image_size is not None:
        fingerprint += f"/{settings.image_size}"
    if settings.think:
        fingerprint += "/think"
    if adapter is not None:
        folder = find_adapter(adapter, offline=settings.offline)
        check_adapter(folder, InstructBlipConfig.from_dict(identity.config))
        fingerprint += adapter_fingerprint(folder)
    load_model = partial(
        load,
        identity,
        adapter=adapter,
        device=settings.device,
        dtype=settings.dtype,
        quantize=settings.quantize,
        image_size=settings.image_size,
        think=settings.think,
        offline=settings.offline,
        server=settings.server,
    )
    return Contender(name=name, fingerprint=fingerprint, load=load_model)


def _evaluation(
    selection: Selection,
    folder: Path,
    rows: Sequence[str],
    identity: Identity,
    settings: EvaluationSettings,
    notify: Callable[[str], None],
) -> Evaluation:
    """Reads the table from a run's records, and writes its report beside them."""
    normalizer = settings.vqa_normalizer
    backbones_own = Thresholds() if identity.entry is None else identity.entry.thresholds
    thresholds = replace(backbones_own, **settings.own_thresholds)
    table = read_table(
        folder,
        selection.tasks,
        rows,
        seed=settings.seed,
        normalizer=normalizer,
        thresholds=thresholds,
        notify=notify,
    )
    split = selection.facts.get("split", selection.collection)
    facts = {"id": f"{identity.name}/{split}", "backbone": identity.name, **selection.facts}
    facts |= settings.own_thresholds
    if settings.image_size is not None:
        facts["image_size"] = settings.image_size
    if settings.think:
        facts["think"] = True
    if any(task.metric == "vqa_accuracy" for task in selection.tasks):
        facts["vqa_normalizer"] = normalizer
    if table.caption_tokenizer is not None:
        facts["caption_tokenizer"] = table.caption_tokenizer
    cases = sample_cases(
        read_records(folder),
        [item for of_task in selection.items.values() for item in of_task],
        table,
        model=rows[-1],
        seed=settings.seed,
        thresholds=thresholds if settings.own_thresholds else None,
    )
    # The paper's figures are of official benchmarks; mini's tasks bear the same names and are other tasks.
    has_figures = selection.collection == "official" and identity.entry is not None
    tasks = [task.name for task in selection.tasks] if has_figures else []
    evaluation = Evaluation(
        collection=selection.collection,
        table=table,
        facts=facts,
        settings=settings,
        thresholds=thresholds,
        generation=selection.generation,
        published=published(identity.entry.name, tasks) if identity.entry is not None else {},
        folder=folder,
    )
    contents = {
        RESULTS_FILE: json.dumps(without_nan(evaluation.as_record()), indent=1) + "\n",
        _MARKDOWN_FILE: as_markdown(table, facts),
        _CHART_FILE: as_svg(table),
        _PAGE_FILE: as_html(table, cases, facts),
    }
    for name, content in contents.items():
        with written_atomically(folder / name) as path:
            path.write_text(content, encoding="utf-8")
    return evaluation


def _versions() -> dict[str, str]:
    """Returns the versions by package, and Python's; packages that are not installed as such are left out."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
