"""From a command's items to its output: one record for people or as JSON, or many as JSON lines."""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlinstruct.backends.registry import default_backbone, locate
from vlinstruct.batch import BadItem, Batch, BatchItem, Summary, resume_key, write_records
from vlinstruct.cli.options import DataOptions, ModelOptions, OptimizationOptions, RunOptions
from vlinstruct.cli.terminal import Talk, progress, show
from vlinstruct.errors import BatchError, InputError, UsageError
from vlinstruct.files import read_json_object
from vlinstruct.instruction.templates import Templates
from vlinstruct.media.images import ImageLimits
from vlinstruct.media.inputs import ListingOptions, has_image_extension, list_images
from vlinstruct.operations import Fields, Operation
from vlinstruct.records.items import ItemError, read_items
from vlinstruct.records.lines import ItemOptions
from vlinstruct.records.output import RecordWriter, open_records
from vlinstruct.shared import Pictures, optimize_shared
from vlinstruct.weights.safetensors_files import fingerprint

if TYPE_CHECKING:
    from PIL import Image

    from vlinstruct.model import Model


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
    optimization: OptimizationOptions | None = None,
    read_text: Callable[[Image.Image], Sequence[str]] | None = None,
) -> None:
    """Runs an operation over items and prints the result.

    Args:
        operation: what to do.
        work: the items.
        options: the command's.
        talk: says notices.
        render: a record as text for people.
        optimization: its templates; None for a command that does not optimize.
        read_text: see `Batch`.

    Raises:
        VlinstructError: the one item's error, or the batch's.
    """
    templates = optimization.load_templates() if optimization is not None else None
    backbone = default_backbone() if options.backbone is None else options.backbone
    batch = Batch(
        operation=operation,
        backbone=backbone,
        load_pipeline=functools.partial(load_pipeline, options, templates),
        batch_size=options.batch_size,
        limits=ImageLimits(max_pixels=options.max_pixels),
        read_text=read_text,
        notify=talk.notice,
    )
    with talk.listening():
        if work.is_batch or options.output is not None:
            inputs = [*work.inputs, *([optimization.templates] if optimization and optimization.templates else [])]
            with _writer(batch, work.items, options, templates, inputs) as writer:
                _run_batch(batch, work.items, writer, options, talk)
        else:
            _run_one(batch, work.items, options, talk, render)


def run_shared(
    instruction: str,
    work: Work,
    *,
    options: RunOptions,
    talk: Talk,
    render: Callable[[Fields], str],
    optimization: OptimizationOptions,
) -> None:
    """Optimizes one instruction for all typed pictures together and prints the one record.

    Raises:
        VlinstructError: no picture can be read, or at least one cannot (after printing).
    """
    backbone = default_backbone() if options.backbone is None else options.backbone
    pictures = Pictures(
        items=[item for item in work.items if isinstance(item, BatchItem)],
        batch_size=options.batch_size,
        limits=ImageLimits(max_pixels=options.max_pixels),
        notify=talk.notice,
    )
    with talk.listening():
        record = optimize_shared(
            instruction,
            pictures,
            backbone=backbone,
            load_pipeline=functools.partial(load_pipeline, options, optimization.load_templates()),
            optimization=optimization.config(),
        )
    _print_record(record, options, talk, render)
    if pictures.failed:
        raise BatchError(
            f"{len(pictures.failed)} of {len(pictures.items)} pictures cannot be read and do not count: "
            f"{pictures.failed[min(pictures.failed)].message}"
        )


def load_pipeline(options: ModelOptions, templates: Templates | None) -> Model:
    """Loads the model that was asked for."""
    from vlinstruct.model import load

    pipeline = load(
        options.backbone,
        adapter=options.adapter,
        device=options.device,
        dtype=options.dtype,
        quantize=options.quantize,
        offline=options.offline,
    )
    if templates is not None:
        pipeline.templates = templates
    collect_garbage_from_here()
    return pipeline


def collect_garbage_from_here() -> None:
    """Ends what `main` began: what is loaded by now stays, and is never walked again."""
    gc.freeze()
    gc.enable()


def _run_one(
    batch: Batch, items: Sequence[Item], options: RunOptions, talk: Talk, render: Callable[[Fields], str]
) -> None:
    (outcome,) = batch.outcomes(items)
    if outcome.error is not None:
        raise outcome.error
    _print_record(outcome.record, options, talk, render)


def _print_record(record: Fields, options: RunOptions, talk: Talk, render: Callable[[Fields], str]) -> None:
    for notice in record.get("optimization", record).get("notices", ()):
        talk.notice(notice)
    if options.as_json:
        RecordWriter(sys.stdout.buffer).write(record)
    else:
        show(render(record))


def _run_batch(batch: Batch, items: Sequence[Item], writer: RecordWriter, options: RunOptions, talk: Talk) -> None:
    for notice in writer.notices:
        talk.notice(notice)
    with progress(len(items), quiet=options.quiet) as advance:
        summary = write_records(batch, items, writer, max_failures=options.max_failures, on_progress=advance)
    if options.output is not None:
        resumed = f", {summary.num_resumed} were there already" if summary.num_resumed else ""
        talk.done(f"{summary.num_done} records written to {options.output}{resumed}")
    if summary.num_failed:
        raise _failure(summary, len(items))


def _failure(summary: Summary, num_items: int) -> BatchError | InputError:
    left = f", {summary.num_left} were not tried (--max-failures)" if summary.num_left else ""
    message = f"{summary.num_failed} of {num_items} items failed{left}. Their records say why."
    all_failed = summary.num_done + summary.num_resumed == 0
    return InputError(message, code="items_failed") if all_failed else BatchError(message)


def _writer(
    batch: Batch, items: Sequence[Item], options: RunOptions, templates: Templates | None, inputs: Sequence[Path]
) -> RecordWriter:
    if options.output is None:
        return RecordWriter(sys.stdout.buffer)
    model = _identity(batch.backbone, options, templates)
    sources = [item.source for item in items if isinstance(item, BatchItem) and isinstance(item.source, Path)]
    return open_records(
        options.output,
        schema=batch.operation.schema,
        keys={str(item.id): resume_key(batch.operation, item, model) for item in items},
        overwrite=options.overwrite,
        inputs=[*inputs, *sources],
    )


def _identity(backbone: str, options: RunOptions, templates: Templates | None) -> list[object]:
    """Returns what a record depends on beside its item and the command."""
    weights = fingerprint(locate(backbone, offline=options.offline))
    adapter = options.adapter and _adapter_identity(locate(options.adapter, offline=options.offline, what="adapter"))
    return [weights, adapter, options.dtype, options.quantize, asdict(templates or Templates.default())]


def _adapter_identity(folder: Path) -> list[object]:
    # The adapter's own module would import torch; whether the folder is sound is told when it is loaded.
    config = read_json_object(folder / "alignment_config.json")
    return [config.get("sha256"), config.get("use_ema")]
