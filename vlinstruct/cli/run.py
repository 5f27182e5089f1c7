"""From a command's items to its output: one record for people or as JSON, or many as JSON lines."""

from __future__ import annotations

import gc
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, TextIO

from vlinstruct.backends.server.address import is_url
from vlinstruct.batch import Watcher, run_batch, run_one
from vlinstruct.cli.asked import asked
from vlinstruct.cli.idle import Idle, say_idle
from vlinstruct.cli.options import DataOptions, RunOptions
from vlinstruct.cli.tables import Look, StreamedTable, console_on, draw
from vlinstruct.cli.terminal import Talk, progress, show, show_record, told_if_stopped
from vlinstruct.errors import BatchError, CheckpointError, InputError, UsageError, VlinstructError, counted, shortened
from vlinstruct.media.fetch import Url
from vlinstruct.media.inputs import ALL_KINDS, ListingOptions, list_images
from vlinstruct.media.kinds import kind_by_name
from vlinstruct.operations import BadItem, BatchItem, Fields, Operation
from vlinstruct.records.columns import columns_of
from vlinstruct.records.items import ITEM_FIELDS, Item, ItemError, read_items
from vlinstruct.records.lines import ItemOptions
from vlinstruct.records.table_output import is_table, lines_of

_LINES_SUFFIXES = ("", ".jsonl", ".ndjson")
"""What the name of a file of JSON lines ends with; any other than these or a table's promises something else."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a command has to do.

    Args:
        items: at least one.
        is_batch: whether to write a record for each and go on past a bad item.
        inputs: files that were read to list the items.
    """

    items: Sequence[BatchItem | BadItem]
    is_batch: bool
    inputs: tuple[Path, ...] = ()

    @property
    def has_one_text(self) -> bool:
        """Says whether all items are asked the same."""
        return len({item.texts for item in self.items if isinstance(item, BatchItem)}) <= 1


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


def file_work(
    path: Path, options: RunOptions, data: DataOptions, talk: Talk, *, takes_lists: bool = False, ranks: bool = False
) -> Work:
    """Reads the items of `--data`; a bad record is a bad item.

    Args:
        path: the file.
        options: the command's; those that list what is typed are idle.
        data: how the file is read.
        talk: says notices.
        takes_lists: whether an item may have several instructions.
        ranks: whether an item's own choices are ranked.

    Raises:
        DataError: the file cannot be read.
        UsageError: `--columns` names what no item has.
    """
    say_idle(talk, options, Idle(names=("recursive", "follow_symlinks"), why="with --data"))
    read = read_items(
        path,
        options=ItemOptions(allow_urls=data.allow_urls, allow_outside=data.allow_outside),
        columns=columns_of(data.columns, ITEM_FIELDS),
        takes_lists=takes_lists,
        notify=talk.notice,
    )
    if not ranks and any(isinstance(item, Item) and item.choices for item in read):
        talk.notice("the items' choices are not used: ask alone ranks them.")
    items = [
        BadItem(id=item.id, error=item.error)
        if isinstance(item, ItemError)
        else BatchItem(
            id=item.id,
            source=item.image,
            image=item.image.name if isinstance(item.image, Url) else str(item.image),
            texts=(item.question, *item.more_questions),
            choices=item.choices if ranks else (),
        )
        for item in read
    ]
    return Work(items=items, is_batch=True, inputs=(path,))


def refuse_unquoted(images: Sequence[str], text: str, *, comes_last: bool, usage: str) -> None:
    """Recognises a text whose words are typed without quotes, most of which would be taken for pictures.

    Args:
        images: what stands for pictures.
        text: what stands for the text, one word of it.
        comes_last: whether the text stands behind the pictures.
        usage: how it is typed.

    Raises:
        UsageError: with the text in quotes.
    """
    words = [image for image in images if not _may_be_picture(image)]
    beside = images[-len(words) :] if comes_last else images[: len(words)]
    # A text with a space in it was quoted: then the other words are pictures that are not there.
    if words and len(words) < len(images) and [*beside] == words and not any(" " in word for word in (*words, text)):
        whole = " ".join([*words, text] if comes_last else [text, *words])
        raise UsageError(f'a text of several words needs quotes: "{shortened(whole, 80)}"', advice=f"Type: {usage}")


def _may_be_picture(typed: str) -> bool:
    is_pattern = any(sign in typed for sign in "*?[") and not typed.endswith("?")
    return kind_by_name(typed) is not None or "://" in typed or typed == "-" or os.path.lexists(typed) or is_pattern


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
    if not all(map(_may_be_picture, images)):
        raise UsageError("the picture and the text are in the wrong order", advice=f"Type: {usage}")
    if os.path.isfile(picture):
        raise UsageError(f"a text is missing: {picture} is a file", advice=f"Type: {usage}")


def run(
    operation: Operation,
    work: Work,
    *,
    options: RunOptions,
    talk: Talk,
    look: Look,
    templates: Path | None = None,
    report: Path | None = None,
) -> None:
    """Runs an operation over items and prints the result.

    Args:
        operation: what to do.
        work: the items.
        options: the command's.
        talk: says notices.
        look: how records are shown to people.
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
    output = options.output
    if output is not None and not is_table(output) and output.suffix.lower() not in _LINES_SUFFIXES:
        talk.notice(f"{output} will hold JSON lines, one record each, whatever its name says.")
    lines = None if output is None else lines_of(output)
    with talk.listening(), reporting(report, len(work.items), lines, talk) as watcher:
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
            print_record(record, options, talk, look)
            return
        with shown_batch(work.items, look, options) as batch:
            is_kept = batch.output is not None
            summary = run_batch(
                operation,
                work.items,
                output=batch.output,
                settings=settings,
                inputs=work.inputs,
                notify=talk.notice,
                on_loaded=collect_garbage_from_here,
                on_progress=batch.advance,
                on_record=batch.show,
                watcher=watcher,
            )
        if options.output is not None:
            resumed = f", {summary.num_resumed:,} were already there" if summary.num_resumed else ""
            talk.done(f"{counted(summary.num_done, 'record')} written to {options.output}{resumed}")
        for warning, count in summary.notices.items():
            talk.notice(f"{count:,} of {counted(summary.num_done, 'record')}: {warning}")
        if summary.num_failed:
            left = f", {summary.num_left:,} were not tried (--max-failures)" if summary.num_left else ""
            of_all = f"{summary.num_failed:,} of {counted(len(work.items), 'item')}"
            message = f"{of_all} failed{left}. {'Their records say' if is_kept else 'The lines above say'} why."
            # Nothing at all succeeded: most likely the command is wrong, or the model, and no single item.
            if summary.num_done + summary.num_resumed == 0:
                if summary.num_model_faults == summary.num_failed:
                    raise CheckpointError(message, code="items_failed")
                raise InputError(message, code="items_failed")
            raise BatchError(message)


@dataclass(frozen=True, kw_only=True)
class ShownBatch:
    """Where the records of a batch go, and what is seen of them meanwhile.

    Args:
        output: what they are written to; None where they are drawn only.
        advance: called for every item that is finished.
        show: called with every record.
    """

    output: Path | BinaryIO | None
    advance: Callable[[], None]
    show: Callable[[Fields], None]


@contextmanager
def shown_batch(items: Sequence[BatchItem | BadItem], look: Look, options: RunOptions) -> Iterator[ShownBatch]:
    """Shows a batch while it runs: on a terminal a table that grows, and a bar below it.

    Args:
        items: all of them.
        look: how a record becomes lines of the table.
        options: say whether JSON lines are wanted, and where.
    """
    is_drawn = options.output is None and not options.as_json and sys.stdout.isatty()
    # Who reads our pipe writes to the same terminal as the bar, and so do JSON lines.
    is_in_the_way = options.output is None and not is_drawn and (sys.stdout.isatty() or _is_pipe(sys.stdout))
    console = console_on(sys.stdout) if is_drawn else None
    names = {item.id: item.image if isinstance(item, BatchItem) else str(item.id) for item in items}
    table = None if console is None else StreamedTable(look, list(names.values()), console)

    # No number: a signal may come between a record's last byte and its being counted.
    kept = None if options.output is None else f"what is finished is in {lines_of(options.output)}"
    with (
        progress(len(items), quiet=options.quiet or is_in_the_way, console=console) as advance,
        told_if_stopped(kept and f"{kept}; the same command goes on from there."),
    ):

        def show_line(record: Fields) -> None:
            if table is not None:
                table.show(names[record["id"]], record)

        yield ShownBatch(
            output=options.output or (None if is_drawn else sys.stdout.buffer), advance=advance, show=show_line
        )


def _is_pipe(stream: TextIO) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):  # it is no file of the system's
        return False


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
    with Collector(num_items) as collector:
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


def print_record(record: Fields, options: RunOptions, talk: Talk, look: Look) -> None:
    """Prints one record, for people or as JSON; its notices are talk."""
    for notice in (*record.get("optimization", {}).get("notices", ()), *record.get("notices", ())):
        talk.notice(notice)
    if options.as_json:
        show_record(record)
        return
    if "optimization" in record:
        talk.asked(asked(record["optimization"]))
    drawn = look.drawn(record) if sys.stdout.isatty() else ()
    if drawn:
        draw(*drawn)
    else:
        show(look.plain(record))
