"""From a command's items to its output: one record for people or as JSON, or many as JSON lines."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlinstruct.batch import BadItem, BatchItem, Summary, run_batch, run_one
from vlinstruct.cli.options import DataOptions, RunOptions
from vlinstruct.cli.terminal import Talk, progress, show, show_record
from vlinstruct.errors import BatchError, InputError, UsageError
from vlinstruct.media.inputs import ListingOptions, has_image_extension, list_images
from vlinstruct.operations import Fields, Operation
from vlinstruct.records.lines import ItemError, ItemOptions, read_items

Item = BatchItem | BadItem


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
        recursive=options.recursive, follow_symlinks=options.follow_symlinks, offline=options.offline
    )
    found = list_images(images, stdin=sys.stdin.buffer if sys.stdin is not None else None, options=listing)
    for notice in found.notices:
        talk.notice(notice)
    items = [BatchItem(id=one.id, source=one.source, image=one.id, texts=texts) for one in found.items]
    return Work(items=items, is_batch=found.is_batch)


def file_work(path: Path, options: DataOptions) -> Work:
    """Reads the items of a JSON-lines file; a bad line is a bad item."""
    read = read_items(path, options=ItemOptions(allow_urls=options.allow_urls, allow_outside=options.allow_outside))
    items: list[Item] = [
        BadItem(id=item.id, error=item.error)
        if isinstance(item, ItemError)
        else BatchItem(id=item.id, source=item.image, image=str(item.image), texts=(item.question,))
        for item in read
    ]
    return Work(items=items, is_batch=True, inputs=(path,))


def refuse_swapped(images: Sequence[str], texts: Sequence[str], usage: str) -> None:
    """Recognises a text and a picture that changed places, or a text that is missing, and says so.

    Raises:
        UsageError: with the right order.
    """
    picture = next((text for text in texts if has_image_extension(text) or os.path.isfile(text)), None)
    if picture is None:
        return
    if any(_is_text(image) for image in images):
        raise UsageError("the picture and the text have changed places", advice=f"Type: {usage}")
    if os.path.isfile(picture):
        raise UsageError(f"a text is missing: {picture} is a file", advice=f"Type: {usage}")


def _is_text(image: str) -> bool:
    is_named = has_image_extension(image) or "://" in image or image == "-"
    return not is_named and not os.path.lexists(image)


def run(
    operation: Operation,
    work: Work,
    *,
    options: RunOptions,
    talk: Talk,
    render: Callable[[Fields], str],
    templates: Path | None = None,
) -> None:
    """Runs an operation over items and prints the result.

    Args:
        operation: what to do.
        work: the items.
        options: the command's.
        talk: says notices.
        render: a record as text for people.
        templates: the user's own templates.

    Raises:
        VlinstructError: the one item's error, or the batch's.
    """
    settings = options.settings(templates)
    with talk.listening():
        if not work.is_batch and options.output is None:
            (item,) = work.items
            record = run_one(
                operation, item, settings=settings, notify=talk.notice, on_loaded=collect_garbage_from_here
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
            )
        if options.output is not None:
            resumed = f", {summary.num_resumed} were there already" if summary.num_resumed else ""
            talk.done(f"{summary.num_done} records written to {options.output}{resumed}")
        if summary.num_failed:
            raise _failure(summary, len(work.items))


def collect_garbage_from_here() -> None:
    """Ends what `main` began: what is loaded by now stays, and is never walked again."""
    gc.freeze()
    gc.enable()


def print_record(record: Fields, options: RunOptions, talk: Talk, render: Callable[[Fields], str]) -> None:
    """Prints one record, for people or as JSON; its notices are talk."""
    for notice in record.get("optimization", record).get("notices", ()):
        talk.notice(notice)
    if options.as_json:
        show_record(record)
    else:
        show(render(record))


def _failure(summary: Summary, num_items: int) -> BatchError | InputError:
    left = f", {summary.num_left} were not tried (--max-failures)" if summary.num_left else ""
    message = f"{summary.num_failed} of {num_items} items failed{left}. Their records say why."
    all_failed = summary.num_done + summary.num_resumed == 0
    return InputError(message, code="items_failed") if all_failed else BatchError(message)
