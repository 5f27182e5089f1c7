"""Runs an operation over items, one record each: a bad item costs one record, not the batch. No torch at import.

The model is loaded when the first picture has been read, so that a command that cannot succeed fails at once. A chunk
that fails as a whole is run again item by item: an item's record never depends on its neighbours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from vlinstruct.data.inputs import Source, load_source
from vlinstruct.data.records import RecordWriter, error_record
from vlinstruct.errors import InputError, NetworkError, VlinstructError
from vlinstruct.operations import Fields, Operation

if TYPE_CHECKING:
    from PIL import Image

    from vlinstruct.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class BatchItem:
    """One item to work on.

    Args:
        id: unique in the batch.
        source: the picture.
        image: what the record calls the picture.
        texts: what was typed for it: the question, the instruction, or several instructions to score.
    """

    id: str | int
    source: Source
    image: str
    texts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BadItem:
    """An item that cannot be worked on, as known before the run."""

    id: str | int
    error: VlinstructError


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an item: its record, and the error if it failed."""

    record: Fields
    error: VlinstructError | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """An operation over items.

    Args:
        operation: what to do.
        backbone: what the records call the model.
        load_pipeline: loads it; called once, when the first picture has been read.
        batch_size: items that go through the model together, at least 1.
        notify: is told what a user should know of a picture, e.g. that it is animated.
    """

    operation: Operation
    backbone: str
    load_pipeline: Callable[[], Pipeline]
    batch_size: int = 1
    notify: Callable[[str], None] = lambda notice: None

    def outcomes(self, items: Iterable[BatchItem | BadItem]) -> Iterator[Outcome]:
        """Yields one outcome per item, in order.

        Raises:
            CheckpointError: the model was refused; NetworkError: it cannot be downloaded. They concern every item.
        """
        pipeline: Pipeline | None = None
        rest = iter(items)
        while chunk := list(islice(rest, self.batch_size)):
            seen = [self._read(item) for item in chunk]
            if any(not isinstance(one, VlinstructError) for one in seen):
                pipeline = pipeline or self.load_pipeline()
            yield from self._run(pipeline, chunk, seen)

    def _read(self, item: BatchItem | BadItem) -> Image.Image | VlinstructError:
        if isinstance(item, BadItem):
            return item.error
        try:
            loaded = load_source(item.source, name=item.image)
        except (InputError, NetworkError) as error:
            return error
        for notice in loaded.notices:
            self.notify(notice)
        return loaded.image

    def _run(
        self,
        pipeline: Pipeline | None,
        chunk: Sequence[BatchItem | BadItem],
        seen: Sequence[Image.Image | VlinstructError],
    ) -> Iterator[Outcome]:
        good = [
            (item, image)
            for item, image in zip(chunk, seen, strict=True)
            if isinstance(item, BatchItem) and not isinstance(image, VlinstructError)
        ]
        results = iter(self._results(pipeline, good) if pipeline is not None and good else ())
        for item, image in zip(chunk, seen, strict=True):
            result = image if isinstance(image, VlinstructError) else next(results)
            yield self._outcome(item, result)

    def _results(
        self, pipeline: Pipeline, good: Sequence[tuple[BatchItem, Image.Image]]
    ) -> list[Fields | VlinstructError]:
        try:
            percept = pipeline.see(*(image for _, image in good))
            return self.operation.run(pipeline, percept, [item.texts for item, _ in good])
        except InputError as error:
            if len(good) == 1:
                return [error]
            return [result for one in good for result in self._results(pipeline, [one])]

    def _outcome(self, item: BatchItem | BadItem, result: Fields | VlinstructError) -> Outcome:
        schema = self.operation.schema
        if isinstance(result, VlinstructError):
            return Outcome(record=error_record(schema, item.id, result), error=result)
        assert isinstance(item, BatchItem)
        head = {"schema": schema, "id": item.id, "status": "ok", "image": item.image, "backbone": self.backbone}
        return Outcome(record={**head, **result})


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a batch went.

    Args:
        num_done: items with a good record of this run.
        num_failed: items with an error record.
        num_resumed: items that an earlier run had finished.
    """

    num_done: int
    num_failed: int
    num_resumed: int


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
        on_progress: called after every record.
    """
    todo = [item for item in items if not writer.is_done(item.id)]
    num_done = num_failed = 0
    for outcome in batch.outcomes(todo):
        writer.write(outcome.record)
        num_done += outcome.error is None
        num_failed += outcome.error is not None
        on_progress()
        if max_failures is not None and num_failed >= max_failures:
            break
    return Summary(num_done=num_done, num_failed=num_failed, num_resumed=len(items) - len(todo))


def resume_key(operation: Operation, item: BatchItem, weights: str) -> str:
    """Identifies an item's result: it is done again only when its id, its arguments or the weights changed.

    Args:
        operation: with everything that changes its results.
        item: with its id, picture and texts.
        weights: the fingerprint of the model and its adapter.

    Returns:
        16 hex digits.
    """
    parts = [operation.schema, operation.settings(), str(item.id), item.image, item.texts, weights]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
