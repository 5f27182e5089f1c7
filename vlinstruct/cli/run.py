"""From a command's items to its output: one record for people or as JSON, or many as JSON lines."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vlinstruct.backends.server.address import is_url
from vlinstruct.batch import Watcher, run_batch, run_one
from vlinstruct.cli.asked import asked
from vlinstruct.cli.idle import Idle, say_idle
from vlinstruct.cli.options import RunOptions
from vlinstruct.cli.terminal import Talk, progress, show, show_record
from vlinstruct.errors import BatchError, CheckpointError, InputError, UsageError, VlinstructError
from vlinstruct.media.inputs import ALL_KINDS, ListingOptions, list_images
from vlinstruct.media.kinds import kind_by_name
from vlinstruct.operations import BadItem, BatchItem, Fields, Operation

Item = BatchItem | BadItem

_OTHER_FORMATS = frozenset(
    {".json", ".csv", ".tsv", ".txt", ".xlsx", ".xls", ".parquet", ".arrow", ".feather", ".yaml", ".yml"}
    | {".md", ".html", ".xml", ".pkl", ".db", ".sqlite", ".gz", ".zip"}
)
"""What a name that ends so promises in place of JSON lines."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a command has to do.

    Args:
        items: at least one.
        is_batch: whether to write JSON lines and go on past a bad item.
        inputs: files that were read to list the items.
    """

    items: Sequence[Item]
    is_batch: bool
    inputs: tuple[Path, ...] = ()


def typed_work(images: Sequence[str], texts: tuple[str, ...], options: RunOptions, talk: Talk) -> Work:
    """Lists the pictures that were typed, each with the same texts."""
    listing = ListingOptions(
        recursive=options.recursive,
        follow_symlinks=options.follow_symlinks,
        offline=options.offline,
        kinds=ALL_KINDS,
    )
    inputs = list_images(images, stdin=sys.stdin.buffer if sys.stdin is not None else None, options=listing)
    for notice in inputs.notices:
        talk.notice(notice)
    if not any(os.path.isdir(image) for image in images):
        say_idle(talk, options, Idle(names=("recursive", "follow_symlinks"), why="without a folder"))
    if all(kind_by_name(item.id) == "picture" for item in inputs.items):
        say_idle(talk, options, Idle(names=("frames", "fps"), why="without a clip"))
    items = [BatchItem(id=item.id, source=item.source, image=item.id, texts=texts) for item in inputs.items]
    return Work(items=items, is_batch=inputs.is_batch)


def refuse_swapped(images: Sequence[str], texts: Sequence[str], usage: str) -> None:
    """Recognises a text and a picture in the wrong order, or a text that is missing, and says so.

    `ask` and `score` take the picture first, `optimize` the instruction: without this a file's name would be sent to
    the model as a question, and it would answer.

    Raises:
        UsageError: with the right order.
    """
    picture = next((text for text in texts if kind_by_name(text) is not None or os.path.isfile(text)), None)
    if picture is None:
        return
    # Only where what stands for the picture cannot be one, too: `sign.png` may be what somebody asks about.
    if any(
        kind_by_name(image) is None and "://" not in image and image != "-" and not os.path.lexists(image)
        for image in images
    ):
        raise UsageError("the picture and the text are in the wrong order", advice=f"Type: {usage}")
    if os.path.isfile(picture):
        raise UsageError(f"a text is missing: {picture} is a file", advice=f"Type: {usage}")


def run(
    operation: Operation,
    work: Work,
    *,
    options: RunOptions,
    talk: Talk,
    render: Callable[[Fields], str],
    templates: Path | None = None,
    report: Path | None = None,
) -> None:
    """Runs an operation over items and prints the result.

    Args:
        operation: what to do.
        work: the items.
        options: the command's.
        talk: says notices.
        render: a record as text for people.
        templates: the user's own templates.
        report: where a page about the items goes.

    Raises:
        VlinstructError: the one item's error, or the batch's.
    """
    settings = options.settings(templates)
    if options.shard is not None:
        work = replace(work, items=options.of_shard(work.items), is_batch=True)
    if not is_url(options.backbone or ""):
        say_idle(talk, options, Idle(names=("served_model", "concurrency", "timeout"), why="without a server's URL"))
    if len(work.items) == 1:
        say_idle(talk, options, Idle(names=("batch_size", "max_failures"), why="with one picture"))
    if options.output is not None and options.output.suffix.lower() in _OTHER_FORMATS:
        talk.notice(f"{options.output} will hold JSON lines, one record each, whatever its name says.")
    with talk.listening(), reporting(report, len(work.items), options.output, talk) as watcher:
        # One typed picture is for eyes, and its error is the command's. A batch goes on past a bad item; so does one
        # picture with --output, since its file may be resumed and extended.
        if not work.is_batch and options.output is None:
            (item,) = work.items
            record = run_one(
                operation,
                item,
                settings=settings,
                notify=talk.notice,
                on_loaded=collect_garbage_from_here,
                watcher=watcher,
            )
            print_record(record, options, talk, render)
            return
        with progress(len(work.items), quiet=options.quiet) as advance:
            summary = run_batch(
                operation,
                work.items,
                output=sys.stdout.buffer if options.output is None else options.output,
                settings=settings,
                inputs=work.inputs,
                notify=talk.notice,
                on_loaded=collect_garbage_from_here,
                on_progress=advance,
                watcher=watcher,
            )
        if options.output is not None:
            resumed = f", {summary.num_resumed} were already there" if summary.num_resumed else ""
            talk.done(f"{summary.num_done} records written to {options.output}{resumed}")
        if summary.num_empty:
            talk.notice(f"answers that are empty: {summary.num_empty}. Their records say so.")
        if summary.num_failed:
            left = f", {summary.num_left} were not tried (--max-failures)" if summary.num_left else ""
            message = f"{summary.num_failed} of {len(work.items)} items failed{left}. Their records say why."
            # Nothing at all succeeded: most likely the command is wrong, or the model, and no single item.
            if summary.num_done + summary.num_resumed == 0:
                if summary.num_model_faults == summary.num_failed:
                    raise CheckpointError(message, code="items_failed")
                raise InputError(message, code="items_failed")
            raise BatchError(message)


@contextmanager
def reporting(report: Path | None, num_items: int, output: Path | None, talk: Talk) -> Iterator[Watcher | None]:
    """Gives what watches a run, and writes its report when the run has come to its end, items that failed included.

    Args:
        report: where the report goes; None for none.
        num_items: of the run.
        output: where its records go, those of earlier runs among them; None where they cannot be read again.
        talk: says where the report is.
    """
    if report is None:
        yield None
        return
    from vlinstruct.records.resume import records_of
    from vlinstruct.report.collected import Collector
    from vlinstruct.report.page import check_report, write_report

    check_report(report, output)
    with closing(Collector(num_items)) as collector:
        failure: VlinstructError | None = None
        try:
            yield collector
        except (BatchError, InputError, CheckpointError) as error:
            if not collector.ids:
                raise
            failure = error
        is_file = output is not None and output.is_file()
        write_report(report, (lambda: records_of(str(output))) if is_file else collector.records, collector)
        talk.done(f"report written to {report}")
        if failure is not None:
            raise failure


def collect_garbage_from_here() -> None:
    """Ends what `main` began: what is loaded by now stays, and is never walked again."""
    # Walking what imports leave took 0.2 s of a cold start, and again 0.1 s at its end (see bench/README.md).
    gc.freeze()
    gc.enable()


def print_record(record: Fields, options: RunOptions, talk: Talk, render: Callable[[Fields], str]) -> None:
    """Prints one record, for people or as JSON; its notices are talk."""
    for notice in (*record.get("optimization", {}).get("notices", ()), *record.get("notices", ())):
        talk.notice(notice)
    if options.as_json:
        show_record(record)
    else:
        if "optimization" in record:
            talk.asked(asked(record["optimization"]))
        show(render(record))
