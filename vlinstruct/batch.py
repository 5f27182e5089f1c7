"""Runs an operation over items and writes one record each; resumes what an earlier run began. No torch at import.

    items = [BatchItem(id="a.png", source=Path("a.png"), image="a.png", texts=("what is it?",))]
    run_batch(Ask(), items, output="answers.jsonl", settings=RunSettings(batch_size=16))

The model is loaded when the first picture has been read, so that a command that cannot succeed fails at once.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from vlinstruct.backends.registry import default_backbone, find, find_adapter
from vlinstruct.chunks import BadItem, Batch, BatchItem, read_picture
from vlinstruct.errors import VlinstructError
from vlinstruct.files import PathLike, read_json_object
from vlinstruct.instruction.templates import Templates
from vlinstruct.media import ocr
from vlinstruct.media.images import DEFAULT_LIMITS, ImageLimits
from vlinstruct.media.read_ahead import read_ahead
from vlinstruct.operations import Fields, Operation, optimization_fields
from vlinstruct.records.output import RecordWriter, open_records
from vlinstruct.settings import OptimizationSettings, RunSettings
from vlinstruct.values import Failed, Identity

if TYPE_CHECKING:
    from PIL import Image

    from vlinstruct.model import Model

SHARED_SCHEMA = "vlinstruct.optimize_shared/1"
DEFAULT_RUN = RunSettings()


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a batch went.

    Args:
        num_done: items with a good record of this run.
        num_failed: items with an error record.
        num_resumed: items that an earlier run had finished.
        num_left: items that were not tried, after `max_failures`.
    """

    num_done: int
    num_failed: int
    num_resumed: int
    num_left: int


def write_records(
    batch: Batch,
    items: Sequence[BatchItem | BadItem],
    writer: RecordWriter,
    *,
    max_failures: int | None = None,
    on_progress: Callable[[], None] = lambda: None,
) -> Summary:
    """Runs a batch and writes one record per item that has none yet.

    Args:
        batch: what to do.
        items: all of them.
        writer: where records go; it knows which items an earlier run finished.
        max_failures: stop after this many failed items; None never stops.
        on_progress: called for every item that is finished, by this run or an earlier one.
    """
    num_resumed = sum(writer.is_done(item.id) for item in items)
    for _ in range(num_resumed):
        on_progress()
    num_done = num_failed = 0
    for outcome in batch.outcomes(items, is_done=writer.is_done):
        writer.write(outcome.record)
        num_done += outcome.error is None
        num_failed += outcome.error is not None
        on_progress()
        if max_failures is not None and num_failed >= max_failures:
            break
    num_left = len(items) - num_resumed - num_done - num_failed
    return Summary(num_done=num_done, num_failed=num_failed, num_resumed=num_resumed, num_left=num_left)


def run_batch(
    operation: Operation,
    items: Iterable[BatchItem | BadItem],
    *,
    output: PathLike | BinaryIO,
    settings: RunSettings = DEFAULT_RUN,
    inputs: Sequence[Path] = (),
    notify: Callable[[str], None] = lambda notice: None,
    on_loaded: Callable[[], None] = lambda: None,
    on_progress: Callable[[], None] = lambda: None,
) -> Summary:
    """Runs an operation over items and writes one record for each.

    Args:
        operation: what to do.
        items: with ids of their own.
        output: a file, which an earlier run may have begun, or a stream.
        settings: the model, and how the items go through it.
        inputs: files that the items were read from; the output must be none of them.
        notify: is told what a user should know.
        on_loaded: called when the model is loaded.
        on_progress: called for every item that is finished, by this run or an earlier one.

    Raises:
        OutputInUseError: another process writes the output.
        InputError: the output is a file of something else, or the templates cannot be used.
        CheckpointError, NetworkError, ResourceError: the model cannot be loaded. A bad item raises nothing.
    """
    source, all_items = _Source(settings, on_loaded), tuple(items)
    batch = _batch(operation, source, settings, notify)
    if isinstance(output, str | Path) or hasattr(output, "__fspath__"):
        templates = [settings.templates] if settings.templates is not None else []
        pictures = [item.source for item in all_items if isinstance(item, BatchItem) and isinstance(item.source, Path)]
        key = source.key()  # hashes the weights' files, which a stream that cannot be resumed does not need
        writer = open_records(
            output,
            schema=operation.schema,
            keys={str(item.id): resume_key(operation, item, key) for item in all_items},
            overwrite=settings.overwrite,
            inputs=[*inputs, *templates, *pictures],
        )
    else:
        writer = RecordWriter(output)
    with writer:
        for notice in writer.notices:
            notify(notice)
        return write_records(batch, all_items, writer, max_failures=settings.max_failures, on_progress=on_progress)


def run_one(
    operation: Operation,
    item: BatchItem | BadItem,
    *,
    settings: RunSettings = DEFAULT_RUN,
    notify: Callable[[str], None] = lambda notice: None,
    on_loaded: Callable[[], None] = lambda: None,
) -> Fields:
    """Runs an operation on one item and returns its record; the arguments are those of `run_batch`.

    Raises:
        VlinstructError: the item or the model failed.
    """
    (outcome,) = _batch(operation, _Source(settings, on_loaded), settings, notify).outcomes([item])
    if outcome.error is not None:
        raise outcome.error
    return outcome.record


class _Source:
    """The model that a run is to use: found when it is first needed, and once."""

    def __init__(self, settings: RunSettings, on_loaded: Callable[[], None]) -> None:
        self.settings = settings.model
        self.on_loaded = on_loaded
        self.name = default_backbone() if settings.model.backbone is None else settings.model.backbone
        # Read now, since a mistake in them is said before any work.
        self.templates = Templates.default() if settings.templates is None else Templates.load(settings.templates)

    @functools.cached_property
    def identity(self) -> Identity:
        return find(self.name, offline=self.settings.offline)

    def load(self) -> Model:
        from vlinstruct.model import load

        model = load(**{**vars(self.settings), "backbone": self.identity}, templates=self.templates)
        self.on_loaded()
        return model

    def key(self) -> list[object]:
        """Returns what a record depends on beside its item and the operation: weights, adapter, numbers, templates."""
        adapter: object = self.settings.adapter
        if self.settings.adapter:
            # The adapter's own module would import torch; whether the folder is sound is told when it is loaded.
            folder = find_adapter(self.settings.adapter, offline=self.settings.offline)
            config = read_json_object(folder / "alignment_config.json")
            adapter = [config.get("sha256"), config.get("use_ema")]
        settings = self.settings
        return [self.identity.fingerprint, adapter, settings.dtype, settings.quantize, asdict(self.templates)]


def _batch(operation: Operation, source: _Source, settings: RunSettings, notify: Callable[[str], None]) -> Batch:
    return Batch(
        operation=operation,
        backbone=source.name,
        load_model=source.load,
        batch_size=settings.batch_size,
        limits=ImageLimits(max_pixels=settings.max_pixels),
        read_text=ocr.ocr_tokens if operation.ocr else None,
        notify=notify,
    )


def resume_key(operation: Operation, item: BatchItem | BadItem, model: Sequence[object]) -> str:
    """Identifies an item's result: it is done again only when its id, its arguments or the model changed.

    Args:
        operation: with everything that changes its results.
        item: with its id, picture and texts.
        model: JSON values that stand for the model: its weights' fingerprint, its adapter, its templates.

    Returns:
        16 hex digits.
    """
    arguments = None
    if isinstance(item, BatchItem):
        # Pictures of stdin are all called `-`: their bytes tell them apart. A file is its name: reading a folder's
        # pictures to decide what is left to do would take as long as opening them.
        piped = hashlib.sha256(item.source).hexdigest() if isinstance(item.source, bytes) else None
        arguments = [item.image, piped, item.texts]
    parts = [operation.schema, operation.settings(), str(item.id), arguments, *model]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures that are read as often as they are needed, and never all at once.

    Args:
        items: where they are.
        batch_size: how many are given together.
        limits: how large a picture may be.
        notify: is told what a user should know of a picture.
        failed: gets those that cannot be read, by the item's place.
    """

    items: Sequence[BatchItem]
    batch_size: int = 1
    limits: ImageLimits = DEFAULT_LIMITS
    notify: Callable[[str], None] = lambda notice: None
    failed: dict[int, VlinstructError] = field(default_factory=dict)

    def chunks(self) -> Iterator[list[Image.Image]]:
        """Yields all pictures that can be read, in order."""
        places = [place for place in range(len(self.items)) if place not in self.failed]
        chunk: list[Image.Image] = []
        read = functools.partial(read_picture, limits=self.limits)
        items = [self.items[place] for place in places]
        for place, loaded in zip(places, read_ahead(items, read, num_ahead=self.batch_size), strict=True):
            if isinstance(loaded, Failed):
                self.failed[place] = loaded.error
                continue
            for notice in loaded.notices:
                self.notify(notice)
            chunk.append(loaded.image)
            if len(chunk) == self.batch_size:
                yield chunk
                chunk = []
        if chunk:
            yield chunk


def optimize_shared(
    instruction: str,
    items: Sequence[BatchItem],
    *,
    settings: RunSettings = DEFAULT_RUN,
    optimization: OptimizationSettings = OptimizationSettings(),
    notify: Callable[[str], None] = lambda notice: None,
    on_loaded: Callable[[], None] = lambda: None,
) -> Fields:
    """Optimizes one instruction for the pictures of all items together and returns the one record.

    A picture that cannot be read does not count; the record names it.

    Args:
        instruction: options included.
        items: where the pictures are; their texts are not read.
        settings: the model, and how many pictures go through it together.
        optimization: how the instruction is chosen.
        notify: is told what a user should know.
        on_loaded: called when the model is loaded, which is when the first picture has been read.

    Raises:
        VlinstructError: no picture can be read (the first one's error), or the model was refused.
    """
    source = _Source(settings, on_loaded)
    limits = ImageLimits(max_pixels=settings.max_pixels)
    pictures = Pictures(items=items, batch_size=settings.batch_size, limits=limits, notify=notify)
    # Before the model is loaded: if no picture can be read, that is the error, and it comes at once.
    if next(pictures.chunks(), None) is None:
        raise pictures.failed[0]
    model = source.load()
    outcome = model.optimize_chunks(instruction, pictures.chunks, optimization=optimization)
    failed = [
        {"image": items[place].image, "code": error.code, "message": str(error)}
        for place, error in sorted(pictures.failed.items())
    ]
    record: Fields = {
        "schema": SHARED_SCHEMA,
        "id": "shared",
        "status": "ok",
        "images": len(items) - len(failed),
        "backbone": source.name,
        **optimization_fields(outcome),
        "revision": model.revision,
        "failed": failed,
    }
    return {name: value for name, value in record.items() if name not in ("revision", "failed") or value}
