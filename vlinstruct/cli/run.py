"""From a command's items to its output: one record for people or as JSON, or many as JSON lines."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlinstruct.batch import BadItem, Batch, BatchItem, resume_key, write_records
from vlinstruct.checkpoints.registry import default_backbone, locate
from vlinstruct.checkpoints.safetensors_files import fingerprint
from vlinstruct.cli.options import RunOptions
from vlinstruct.cli.terminal import PipeClosed, Talk, progress, show
from vlinstruct.data.inputs import ListingOptions, has_image_extension, list_images
from vlinstruct.data.items import ItemError, ItemOptions, read_items
from vlinstruct.data.record_files import open_records
from vlinstruct.data.records import RecordWriter, json_line
from vlinstruct.errors import BatchError, InputError, UsageError
from vlinstruct.instruction.templates import Templates
from vlinstruct.operations import Fields, Operation

if TYPE_CHECKING:
    from vlinstruct.pipeline import Pipeline

Item = BatchItem | BadItem


def typed_items(
    images: Sequence[str], texts: tuple[str, ...], options: RunOptions, talk: Talk
) -> tuple[list[Item], bool]:
    """Lists the pictures that were typed, each with the same texts, and says whether they are a batch."""
    listing = ListingOptions(recursive=options.recursive, offline=options.offline)
    found = list_images(images, stdin=sys.stdin.buffer, options=listing)
    for notice in found.notices:
        talk.notice(notice)
    return [BatchItem(id=one.id, source=one.source, image=one.id, texts=texts) for one in found.items], found.is_batch


def file_items(path: Path, item_options: ItemOptions) -> list[Item]:
    """Reads the items of a JSON-lines file; a bad line is a bad item."""
    return [
        BadItem(id=item.id, error=item.error)
        if isinstance(item, ItemError)
        else BatchItem(id=item.id, source=item.image, image=str(item.image), texts=(item.question,))
        for item in read_items(path, options=item_options)
    ]


def refuse_swapped(images: Sequence[str], texts: Sequence[str], usage: str) -> None:
    """Recognises a text and a picture that changed places, and says so.

    Raises:
        UsageError: with the right order.
    """
    text_is_image = any(has_image_extension(text) or os.path.isfile(text) for text in texts)
    image_is_text = all(" " in image and not os.path.exists(image) for image in images)
    if text_is_image and image_is_text:
        raise UsageError(f"the picture and the text have changed places. Type: {usage}")


def run(
    operation: Operation,
    items: Sequence[Item],
    *,
    is_batch: bool,
    options: RunOptions,
    talk: Talk,
    render: Callable[[Fields], str],
    templates: Templates | None = None,
    inputs: Sequence[Path] = (),
) -> None:
    """Runs an operation over items and prints the result.

    Args:
        operation: what to do.
        items: at least one.
        is_batch: whether to write JSON lines and go on past a bad item.
        options: the command's.
        talk: says notices.
        render: a record as text for people.
        templates: the texts that optimization sends; the shipped ones if None.
        inputs: files the command reads, which the output must not replace.

    Raises:
        VlinstructError: the one item's error, or the batch's.
    """
    talk.listen()
    backbone = options.backbone or default_backbone()
    batch = Batch(
        operation=operation,
        backbone=backbone,
        load_pipeline=functools.partial(_load, backbone, options, templates),
        batch_size=options.batch_size,
        notify=talk.notice,
    )
    if is_batch or options.output is not None:
        _run_batch(batch, items, options, talk, inputs)
    else:
        _run_one(batch, items[0], options, render)


def _load(backbone: str, options: RunOptions, templates: Templates | None) -> Pipeline:
    from vlinstruct.pipeline import load

    pipeline = load(
        backbone, adapter=options.adapter, device=options.device, dtype=options.dtype, offline=options.offline
    )
    if templates is not None:
        pipeline.templates = templates
    return pipeline


def _run_one(batch: Batch, item: Item, options: RunOptions, render: Callable[[Fields], str]) -> None:
    (outcome,) = batch.outcomes([item])
    if outcome.error is not None:
        raise outcome.error
    show(json_line(outcome.record).decode().rstrip("\n") if options.as_json else render(outcome.record))


def _run_batch(batch: Batch, items: Sequence[Item], options: RunOptions, talk: Talk, inputs: Sequence[Path]) -> None:
    with _writer(batch, items, options, inputs) as writer, progress(len(items), quiet=options.quiet) as advance:
        for notice in writer.notices:
            talk.notice(notice)
        try:
            summary = write_records(batch, items, writer, max_failures=options.max_failures, on_progress=advance)
        except BrokenPipeError:
            raise PipeClosed from None
    if options.output is not None:
        resumed = f", {summary.num_resumed} were there already" if summary.num_resumed else ""
        talk.done(f"{summary.num_done} records written to {options.output}{resumed}")
    if summary.num_failed:
        message = f"{summary.num_failed} of {len(items)} items failed. Their records say why."
        all_failed = summary.num_done + summary.num_resumed == 0
        raise InputError(message, code="items_failed") if all_failed else BatchError(message)


def _writer(batch: Batch, items: Sequence[Item], options: RunOptions, inputs: Sequence[Path]) -> RecordWriter:
    if options.output is None:
        return RecordWriter(sys.stdout.buffer)
    weights = fingerprint(locate(batch.backbone, offline=options.offline)) + (options.adapter or "")
    good = [item for item in items if isinstance(item, BatchItem)]
    return open_records(
        options.output,
        schema=batch.operation.schema,
        keys={str(item.id): resume_key(batch.operation, item, weights) for item in good},
        overwrite=options.overwrite,
        inputs=[*inputs, *(item.source for item in good if isinstance(item.source, Path))],
    )
