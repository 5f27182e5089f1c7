"""Runs an operation over items chunk by chunk: a bad item costs one record, not the batch. No torch at import.

A chunk is `batch_size` pictures that could be read, in order. A bad item takes no place in it, and an item that an
earlier run finished keeps its place: the last decimals of a score depend on who shares the chunk, so a record has the
same bytes whatever is wrong with other items and however often the run was interrupted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlinstruct.errors import InputError, NetworkError, VlinstructError
from vlinstruct.media.images import DEFAULT_LIMITS, ImageLimits, LoadedImage
from vlinstruct.media.inputs import Source, load_source
from vlinstruct.media.read_ahead import read_ahead
from vlinstruct.operations import Fields, Operation
from vlinstruct.records.output import error_record
from vlinstruct.values import Failed, good

if TYPE_CHECKING:
    from PIL import Image

    from vlinstruct.model import Model


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
class _Row:
    """An item of a chunk: its picture, its error, or neither if an earlier run finished it."""

    item: BatchItem | BadItem
    image: Image.Image | None = None
    error: VlinstructError | None = None
    notices: tuple[str, ...] = ()
    is_done: bool = False


@dataclass(frozen=True, kw_only=True)
class Batch:
    """An operation over items.

    Args:
        operation: what to do.
        backbone: what the records call the model.
        load_model: loads it; called once, when the first picture has been read.
        batch_size: items that go through the model together, at least 1.
        limits: how large a picture may be.
        read_text: reads the words in a picture, which then follow an item's texts, joined by commas; None reads none.
        notify: is told what a user should know of a picture, e.g. that it is animated.
    """

    operation: Operation
    backbone: str
    load_model: Callable[[], Model]
    batch_size: int = 1
    limits: ImageLimits = DEFAULT_LIMITS
    read_text: Callable[[Image.Image], Sequence[str]] | None = None
    notify: Callable[[str], None] = lambda notice: None

    def outcomes(
        self, items: Iterable[BatchItem | BadItem], *, is_done: Callable[[str | int], bool] = lambda id: False
    ) -> Iterator[Outcome]:
        """Yields one outcome per item, in order.

        Args:
            items: with ids of their own.
            is_done: says by an item's id that an earlier run finished it; it gets no outcome.

        Raises:
            CheckpointError: the model was refused; NetworkError: it cannot be downloaded. They concern every item.
        """
        load = functools.cache(self.load_model)
        chunk: list[_Row] = []
        num_places = 0

        def read(item: BatchItem | BadItem) -> _Row:
            # A finished item's picture is read only if another one of its chunk is still to be done.
            return _Row(item=item, is_done=True) if is_done(item.id) else self._read(item)

        for row in read_ahead(items, read, num_ahead=self.batch_size):
            for notice in row.notices:
                self.notify(notice)
            chunk.append(row)
            num_places += row.error is None
            # A bad item in front of a chunk is reported at once: nothing that follows can change its record.
            if num_places in (0, self.batch_size):
                yield from self._run(chunk, load)
                chunk, num_places = [], 0
        yield from self._run(chunk, load)

    def _read(self, item: BatchItem | BadItem) -> _Row:
        if isinstance(item, BadItem):
            return _Row(item=item, error=item.error)
        loaded = read_picture(item, self.limits)
        if isinstance(loaded, Failed):
            return _Row(item=item, error=loaded.error)
        return _Row(item=item, image=loaded.image, notices=tuple(loaded.notices))

    def _run(self, chunk: Sequence[_Row], load: Callable[[], Model]) -> Iterator[Outcome]:
        todo = [row for row in chunk if not row.is_done]
        results: dict[str | int, Fields | Failed] = {}
        if any(row.error is None for row in todo):
            rows = [self._read(row.item) if row.is_done else row for row in chunk]
            results = self._results(load(), [row for row in rows if row.error is None])
        schema = self.operation.schema
        for row in todo:
            item, result = row.item, Failed(error=row.error) if row.error else results[row.item.id]
            if isinstance(result, Failed):
                yield Outcome(record=error_record(schema, item.id, result.error), error=result.error)
                continue
            assert isinstance(item, BatchItem)
            head = {"schema": schema, "id": item.id, "status": "ok", "image": item.image, "backbone": self.backbone}
            yield Outcome(record={**head, **result})

    def _results(self, model: Model, rows: Sequence[_Row]) -> dict[str | int, Fields | Failed]:
        """Runs a chunk; one that fails as a whole is run again item by item."""
        ids = [row.item.id for row in rows]
        try:
            seen = [good(outcome) for outcome in model.see_each([row.image for row in rows if row.image is not None])]
            texts = [self._texts(row) for row in rows]
            results = self.operation.run(model, seen, texts)
            # The hub's commit, where there is one: a name stays the same when its repository moves on.
            revision = {} if model.revision is None else {"revision": model.revision}
            return {
                id: result if isinstance(result, Failed) else {**result, **revision}
                for id, result in zip(ids, results, strict=True)
            }
        except InputError as error:
            if len(rows) == 1:
                return {ids[0]: Failed(error=error)}
            return {id: result for row in rows for id, result in self._results(model, [row]).items()}

    def _texts(self, row: _Row) -> Sequence[str]:
        assert isinstance(row.item, BatchItem)
        if self.read_text is None or row.image is None:
            return row.item.texts
        return (*row.item.texts, ", ".join(self.read_text(row.image)))


def read_picture(item: BatchItem, limits: ImageLimits) -> LoadedImage | Failed:
    """Opens an item's picture; what is wrong with it is the item's own failure."""
    try:
        return load_source(item.source, name=item.image, limits=limits)
    except (InputError, NetworkError) as error:
        return Failed(error=error)
