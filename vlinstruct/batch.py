"""Runs an operation over items, one record each: a bad item costs one record, not the batch. No torch at import.

    items = [BatchItem(id="a.png", source=Path("a.png"), image="a.png", texts=("what is it?",))]
    run_batch(Ask(), items, output="answers.jsonl", settings=RunSettings(batch_size=16))

The model is loaded when the first picture has been read, so that a command that cannot succeed fails at once.

A chunk is `batch_size` pictures that could be read, in order. A bad item takes no place in it, and an item that an
earlier run finished keeps its place: the last decimals of a score depend on who shares the chunk, so a record has the
same bytes whatever is wrong with other items and however often the run was interrupted.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Unpack

from PIL import Image

from vlinstruct.backends.registry import abilities_of, default_backbone, find, find_adapter, require_options
from vlinstruct.errors import CheckpointError, DataError, InputError, NetworkError, VlinstructError
from vlinstruct.files import PathLike
from vlinstruct.instruction.templates import Templates
from vlinstruct.media import ocr
from vlinstruct.media.images import ImageLimits, is_array
from vlinstruct.media.inputs import load_medium_of
from vlinstruct.media.load import LoadedMedium, MediaSettings, require_readers
from vlinstruct.media.read_ahead import read_ahead, side_by_side
from vlinstruct.operations import (
    BadItem,
    BatchItem,
    Fields,
    Operation,
    optimization_fields,
    resume_key,
)
from vlinstruct.records.output import RecordWriter, error_record, json_line, open_records
from vlinstruct.records.table_output import is_table, lines_of, require_table, write_table
from vlinstruct.settings import OptimizationOptions, OptimizationSettings, RunSettings, takes_options
from vlinstruct.values import Abilities, Answer, Clip, Failed, Identity, Optimization, Sound, good
from vlinstruct.weights.fingerprint import adapter_fingerprint

if TYPE_CHECKING:
    from vlinstruct.backend import Seen
    from vlinstruct.model import Model
    from vlinstruct.values import Media

SHARED_SCHEMA = "vlinstruct.optimize_shared/1"
DEFAULT_RUN = RunSettings()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an item: its record, and the error if it failed."""

    record: Fields
    error: VlinstructError | None = None


@dataclass(frozen=True, kw_only=True)
class _Row:
    """An item of a chunk: its picture, clip or sound, its error, or neither if an earlier run finished it."""

    item: BatchItem | BadItem
    medium: Media | None = None
    words: tuple[str, ...] = ()  # what OCR has read in it, as one text
    error: VlinstructError | None = None
    notices: tuple[str, ...] = ()
    is_done: bool = False


class Watcher(Protocol):
    """Sees what becomes of items, beside their records; from several threads, and of an item perhaps twice."""

    def sees(self, item: BatchItem, medium: Media) -> None:
        """Is given an item's picture, clip or sound as it was read, before it is made small for the model."""
        ...

    def learns(self, item: BatchItem, model: Model, seen: Seen, result: Answer | Optimization) -> None:
        """Is given what the operation found out about an item."""
        ...

    def writes(self, record: Fields) -> None:
        """Is given an item's record."""
        ...


@dataclass(frozen=True, kw_only=True)
class Batch:
    """An operation over items.

    Args:
        operation: what to do.
        backbone: what the records call the model.
        load_model: loads it; called once, when the first picture has been read.
        batch_size: items that go through the model together, at least 1.
        media: how pictures, clips and sounds are read.
        abilities: what the model can do, as far as that is known before it is loaded; asked where it is no picture.
        read_text: reads the words in a picture, which then follow an item's texts, joined by commas; None for nobody.
        notify: is told what a user should know of a picture, e.g. that it is animated.
        watcher: sees what becomes of every item; None for nobody.
    """

    operation: Operation
    backbone: str
    load_model: Callable[[], Model]
    batch_size: int = 1
    media: MediaSettings = MediaSettings()
    abilities: Callable[[], Abilities | None] = lambda: None
    read_text: Callable[[Image.Image], Sequence[str]] | None = None
    notify: Callable[[str], None] = lambda notice: None
    watcher: Watcher | None = None

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
        models: list[Model] = []

        def load() -> Model:
            if not models:
                models.append(self.load_model())
            return models[0]

        chunks = self._chunks(items, is_done, load)
        for chunk in chunks:
            num_in_flight = models[0].backend.abilities.num_in_flight if models else 1
            if num_in_flight == 1:
                yield from self._run(chunk, load)
                continue
            # A server works on many: each chunk's calls wait for themselves alone. More wait for their turn than are
            # at work, so that a slow one holds up none.
            rest = itertools.chain([chunk], chunks)
            for outcomes in side_by_side(rest, lambda chunk: list(self._run(chunk, load)), num_threads=num_in_flight):
                yield from outcomes

    def _chunks(
        self, items: Iterable[BatchItem | BadItem], is_done: Callable[[str | int], bool], load: Callable[[], Model]
    ) -> Iterator[list[_Row]]:
        chunk: list[_Row] = []
        num_places = 0
        for row in self._rows(items, is_done, load):
            for notice in row.notices:
                self.notify(notice)
            chunk.append(row)
            num_places += row.error is None
            if num_places in (0, self.batch_size):
                yield chunk
                chunk, num_places = [], 0
        if chunk:
            yield chunk

    def _rows(
        self, items: Iterable[BatchItem | BadItem], is_done: Callable[[str | int], bool], load: Callable[[], Model]
    ) -> Iterator[_Row]:
        """Reads ahead of the model; pictures wait for their chunk at the model's size, as whole ones would fill memory.

        The first picture is what the model is loaded for, so the thread that reads on waits for that with its second.
        Words are read from whole pictures, by an engine that one thread alone may use: then the thread is one ahead.
        """
        models: list[Model] = []
        may_go_on = threading.Event()
        num_pictures = itertools.count()  # counted in the thread alone

        def row_of(item: BatchItem | BadItem) -> _Row:
            row = _Row(item=item, is_done=True) if is_done(item.id) else self._read(item)
            if row.medium is not None and next(num_pictures) > 0 and self.read_text is None:
                may_go_on.wait()
                return self._prepared(row, models[0]) if models else row
            return row

        try:
            for row in read_ahead(items, row_of, num_ahead=self.batch_size if self.read_text is None else 1):
                is_first = row.medium is not None and not models
                if is_first:
                    models.append(load())
                    may_go_on.set()
                is_whole = row.medium is not None and (is_first or self.read_text is not None)
                yield self._prepared(row, models[0]) if is_whole else row
        finally:
            may_go_on.set()

    def _again(self, item: BatchItem | BadItem, model: Model) -> _Row:
        """Reads an item that an earlier run finished, because it shares its chunk with one that is to be done."""
        row = self._read(item)
        return row if row.medium is None else self._prepared(row, model)

    def _prepared(self, row: _Row, model: Model) -> _Row:
        """Returns a row with its picture's words, and the picture as the model needs it."""
        assert row.medium is not None
        try:
            words = () if self.read_text is None else (", ".join(self.read_text(_picture(row.medium, row.item))),)
        except InputError as error:
            return replace(row, medium=None, error=error)
        return replace(row, medium=model.prepare(row.medium), words=words)

    def _read(self, item: BatchItem | BadItem) -> _Row:
        if isinstance(item, BadItem):
            return _Row(item=item, error=item.error)
        loaded = read_medium(item, self.media, self.abilities)
        if isinstance(loaded, Failed):
            return _Row(item=item, error=loaded.error)
        if self.watcher is not None:
            self.watcher.sees(item, loaded.medium)
        return _Row(item=item, medium=loaded.medium, notices=tuple(loaded.notices))

    def _run(self, chunk: Sequence[_Row], load: Callable[[], Model]) -> Iterator[Outcome]:
        todo = [row for row in chunk if not row.is_done]
        results: dict[str | int, Fields | Failed] = {}
        if any(row.error is None for row in todo):
            model = load()
            rows = [self._again(row.item, model) if row.is_done else row for row in chunk]
            results = self._results(model, [row for row in rows if row.error is None])
        for row in todo:
            yield self._outcome(row.item, Failed(error=row.error) if row.error else results[row.item.id])

    def _results(self, model: Model, rows: Sequence[_Row]) -> dict[str | int, Fields | Failed]:
        """Runs a chunk; one that fails as a whole is run again item by item."""
        ids = [row.item.id for row in rows]
        try:
            seen = [good(outcome) for outcome in model.see_each([row.medium for row in rows if row.medium is not None])]
            texts = [(*row.item.texts, *row.words) if isinstance(row.item, BatchItem) else () for row in rows]
            choices = [row.item.choices if isinstance(row.item, BatchItem) else () for row in rows]

            def observe(place: int, result: Answer | Optimization | Failed) -> None:
                item = rows[place].item
                if self.watcher is not None and isinstance(item, BatchItem) and not isinstance(result, Failed):
                    self.watcher.learns(item, model, seen[place], result)

            results = self.operation.run(model, seen, texts, choices, observe)
            # A name stays the same when a repository of the hub moves on; its commit says what answered.
            commit = {} if model.revision is None else {"revision": model.revision}
            return {
                id: result if isinstance(result, Failed) else {**result, **commit}
                for id, result in zip(ids, results, strict=True)
            }
        except InputError as error:
            if len(rows) == 1:
                return {ids[0]: Failed(error=error)}
            return {id: result for row in rows for id, result in self._results(model, [row]).items()}

    def _outcome(self, item: BatchItem | BadItem, result: Fields | Failed) -> Outcome:
        schema = self.operation.schema
        if isinstance(result, Failed):
            return Outcome(record=error_record(schema, item.id, result.error), error=result.error)
        assert isinstance(item, BatchItem)
        head = {"schema": schema, "id": item.id, "status": "ok", "image": item.image, "backbone": self.backbone}
        return Outcome(record={**head, **result})


def _picture(medium: Media, item: BatchItem | BadItem) -> Image.Image:
    """Returns a picture that words can be read in.

    Raises:
        InputError: it is a clip or a sound.
    """
    if isinstance(medium, Clip | Sound):
        why = "--ocr reads the words of pictures alone"
        raise InputError.at("cannot read words", item.id, why, "Ask it without --ocr", code="no_picture")
    return medium


def read_medium(
    item: BatchItem, settings: MediaSettings, abilities: Callable[[], Abilities | None] = lambda: None
) -> LoadedMedium | Failed:
    """Reads an item's picture, clip or sound, if the backend takes it."""
    try:
        return load_medium_of(item.source, name=item.image, settings=settings, abilities=abilities)
    except (InputError, NetworkError) as error:
        return Failed(error=error)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a batch went.

    Args:
        num_done: items with a good record of this run.
        num_failed: items with an error record.
        num_resumed: items that an earlier run had finished.
        num_left: items that were not tried, after `max_failures`.
        notices: what the records of `num_done` warn of, and how many of them do.
        num_model_faults: of `num_failed`, those where the model is at fault: what it computed is not finite.
    """

    num_done: int
    num_failed: int
    num_resumed: int
    num_left: int
    notices: Mapping[str, int] = field(default_factory=dict)
    num_model_faults: int = 0


def write_records(
    batch: Batch,
    items: Sequence[BatchItem | BadItem],
    writer: RecordWriter,
    *,
    max_failures: int | None = None,
    on_progress: Callable[[], None] = lambda: None,
    on_record: Callable[[Fields], None] = lambda record: None,
) -> Summary:
    """Runs a batch and writes one record per item that has none yet.

    Args:
        batch: what to do.
        items: all of them.
        writer: where records go; it knows which items an earlier run finished.
        max_failures: stop after this many failed items; None never stops.
        on_progress: called for every item that is finished, by this run or an earlier one.
        on_record: is given every record when it is written.
    """
    num_resumed = sum(writer.is_done(item.id) for item in items)
    for _ in range(num_resumed):
        on_progress()
    num_done = num_failed = num_model_faults = 0
    num_of_kind: Counter[str] = Counter()
    notices: dict[str, str] = {}  # by kind, what stands before the colon: a million records must not be a million texts
    for outcome in batch.outcomes(items, is_done=writer.is_done):
        writer.write(outcome.record)
        if batch.watcher is not None:
            batch.watcher.writes(outcome.record)
        on_record(outcome.record)
        num_done += outcome.error is None
        num_failed += outcome.error is not None
        num_model_faults += isinstance(outcome.error, CheckpointError)
        for notice in outcome.record.get("notices", ()):
            kind = notice.partition(":")[0]
            num_of_kind[kind] += 1
            notices[kind] = notice if notices.get(kind, notice) == notice else f"{kind}. The records say more."
        on_progress()
        if max_failures is not None and num_failed >= max_failures:
            break
    num_left = len(items) - num_resumed - num_done - num_failed
    return Summary(
        num_done=num_done,
        num_failed=num_failed,
        num_resumed=num_resumed,
        num_left=num_left,
        notices={notices[kind]: count for kind, count in num_of_kind.items()},
        num_model_faults=num_model_faults,
    )


def run_batch(
    operation: Operation,
    items: Iterable[BatchItem | BadItem],
    *,
    output: PathLike | BinaryIO | None,
    settings: RunSettings = DEFAULT_RUN,
    inputs: Sequence[Path] = (),
    notify: Callable[[str], None] = lambda notice: None,
    on_loaded: Callable[[], None] = lambda: None,
    on_progress: Callable[[], None] = lambda: None,
    on_record: Callable[[Fields], None] = lambda record: None,
    watcher: Watcher | None = None,
) -> Summary:
    """Runs an operation over items and writes one record for each.

    Args:
        operation: what to do.
        items: with ids of their own.
        output: a file, which an earlier run may have begun, or a stream; None where `on_record` is enough. A name that
            ends in .csv or .parquet is a table, made at the end of the lines in a file beside it (`table_output`).
        settings: the model, and how the items go through it.
        inputs: files that the items were read from; the output must be none of them.
        notify: is told what a user should know.
        on_loaded: called when the model is loaded.
        on_progress: called for every item that is finished, by this run or an earlier one.
        on_record: is given every record of this run when it is written.
        watcher: sees what becomes of every item that this run works on.

    Raises:
        OutputInUseError: another process writes the output.
        InputError: the output is a file of something else, or the templates cannot be used.
        ResourceError: the output cannot be written, or is parquet and pyarrow is not installed.
        CheckpointError, NetworkError, ResourceError: the model cannot be loaded. A bad item raises nothing.
    """
    chosen, listed = ChosenModel(settings, on_loaded), tuple(items)
    require_readers([item.image for item in listed if isinstance(item, BatchItem)])
    batch = replace(_batch(operation, chosen, settings, notify), watcher=watcher)
    if isinstance(output, str | os.PathLike):
        templates = [settings.templates] if settings.templates is not None else []
        pictures = [
            item.source for item in listed if isinstance(item, BatchItem) and isinstance(item.source, str | Path)
        ]
        read = [*inputs, *templates, *pictures]
        if is_table(output):
            require_table(output, overwrite=settings.overwrite, inputs=read)
        key = chosen.key()
        writer = open_records(
            lines_of(output),
            schema=operation.schema,
            keys={str(item.id): resume_key(operation, item, key, clips=settings.clips) for item in listed},
            overwrite=settings.overwrite,
            inputs=read,
        )
    elif output is None:
        writer = RecordWriter(open(os.devnull, "wb"), closes=True)  # noqa: SIM115
    else:
        writer = RecordWriter(output)
    with writer:
        for notice in writer.notices:
            notify(notice)
        summary = write_records(
            batch,
            listed,
            writer,
            max_failures=settings.max_failures,
            on_progress=on_progress,
            on_record=on_record,
        )
        if isinstance(output, str | os.PathLike) and is_table(output):
            write_table(output)  # while the lines are locked: they are whole, and nobody else's
        return summary


def run_one(
    operation: Operation,
    item: BatchItem | BadItem,
    *,
    settings: RunSettings = DEFAULT_RUN,
    notify: Callable[[str], None] = lambda notice: None,
    on_loaded: Callable[[], None] = lambda: None,
    watcher: Watcher | None = None,
) -> Fields:
    """Runs an operation on one item and returns its record; the arguments are those of `run_batch`.

    Raises:
        VlinstructError: the item or the model failed.
    """
    if isinstance(item, BatchItem):
        require_readers([item.image])
    batch = replace(_batch(operation, ChosenModel(settings, on_loaded), settings, notify), watcher=watcher)
    (outcome,) = batch.outcomes([item])
    if outcome.error is not None:
        raise outcome.error
    if watcher is not None:
        watcher.writes(outcome.record)
    return outcome.record


class MapBatches:
    """An operation as a class that maps blocks of rows, for Ray Data's `map_batches` and whatever calls alike.

        rows.map_batches(MapBatches, fn_constructor_args=(Ask(optimize=True), settings), batch_size=32, concurrency=4)

    The model is loaded once, with the first block. A bad row costs its own record.

    Args:
        operation: what to do.
        settings: the model, and how rows go through it.
        image: the column of pictures: paths, encoded bytes, arrays or PIL's.
        text: the column of questions or instructions.
        id: the column that names rows; it comes back.
    """

    def __init__(
        self,
        operation: Operation,
        settings: RunSettings = DEFAULT_RUN,
        *,
        image: str = "image",
        text: str = "question",
        id: str = "id",
    ) -> None:
        self.columns = (id, image, text)
        chosen = ChosenModel(settings, lambda: None)
        batch = _batch(operation, chosen, settings, lambda notice: None)
        self.batch = replace(batch, load_model=functools.cache(chosen.load))

    def __call__(self, rows: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Returns the rows' ids and records.

        Args:
            rows: by column, lists or arrays of one length, N.

        Returns:
            The column of ids, and `status` and `record`, each record as JSON, N.

        Raises:
            DataError: a column is missing.
            CheckpointError, NetworkError, ResourceError: the model cannot be loaded.
        """
        missing = [name for name in self.columns if name not in rows]
        if missing:
            names = ", ".join(map(str, rows))
            raise DataError.at("no such column", missing[0], f"these are there: {names}", "Name the right one")
        ids, images, texts = (list(rows[name]) for name in self.columns)
        # Numbered anew: rows of a block may share an id, and a block is no file.
        items = [_block_item(place, *row) for place, row in enumerate(zip(images, texts, strict=True))]
        records = [
            {**outcome.record, "id": id}
            for id, outcome in zip(map(_plain, ids), self.batch.outcomes(items), strict=True)
        ]
        return {
            self.columns[0]: ids,
            "status": [record["status"] for record in records],
            "record": [json_line(record).decode().rstrip() for record in records],
        }


def _block_item(place: int, image: Any, text: Any) -> BatchItem | BadItem:
    """Makes an item of a row: its picture is encoded bytes, a path, an array or PIL's."""
    if not isinstance(text, str):
        error = DataError("the question is no text", advice="Check the column.", code="bad_text")
        return BadItem(id=place, error=error)
    if isinstance(image, bytes | bytearray | memoryview):
        return BatchItem(id=place, source=bytes(image), image="bytes", texts=(text,))
    if isinstance(image, str | os.PathLike):
        return BatchItem(id=place, source=Path(image), image=os.fspath(image), texts=(text,))
    if is_array(image) or isinstance(image, Image.Image):
        return BatchItem(id=place, source=image, image="pixels", texts=(text,))
    error = DataError(
        "the picture is neither a path nor bytes nor pixels", advice="Check the column.", code="bad_image"
    )
    return BadItem(id=place, error=error)


def _plain(id: Any) -> str | int:
    """Returns a row's id as JSON takes it; arrays hold numbers of their own kinds."""
    return id if isinstance(id, str) else int(id)


class ChosenModel:
    """The model that a run is to use: found when it is first needed, and once."""

    def __init__(self, settings: RunSettings, on_loaded: Callable[[], None]) -> None:
        self.settings = settings.model
        self.on_loaded = on_loaded
        self.name = default_backbone() if settings.model.backbone is None else settings.model.backbone
        # Read now, since a mistake in them is said before any work.
        self.templates = Templates.default() if settings.templates is None else Templates.load(settings.templates)

    @functools.cached_property
    def identity(self) -> Identity:
        settings = self.settings
        # Before anything is downloaded.
        require_options(
            self.name,
            adapter=settings.adapter,
            image_size=settings.image_size,
            compile=settings.compile,
            think=settings.think,
        )
        return find(self.name, offline=self.settings.offline)

    def abilities(self) -> Abilities | None:
        """Returns what the model can do, as far as that is known before it is loaded."""
        return abilities_of(self.name)

    def load(self) -> Model:
        from vlinstruct.model import load

        model = load(**{**vars(self.settings), "backbone": self.identity}, templates=self.templates)
        self.on_loaded()
        return model

    def key(self) -> list[object]:
        """Returns what a record depends on beside its item and the operation: weights, adapter, numbers, templates."""
        adapter: object = self.settings.adapter
        if self.settings.adapter:
            folder = find_adapter(self.settings.adapter, offline=self.settings.offline)
            adapter = adapter_fingerprint(folder)
        settings = self.settings
        # What came later stands there only where it is used: records of before can still be resumed.
        loaded = [settings.dtype, settings.quantize, settings.image_size, *(["think"] if settings.think else [])]
        loaded += ["compile"] if settings.compile else []
        return [self.identity.fingerprint, adapter, *loaded, asdict(self.templates)]


def _batch(operation: Operation, chosen: ChosenModel, settings: RunSettings, notify: Callable[[str], None]) -> Batch:
    return Batch(
        operation=operation,
        backbone=chosen.name,
        load_model=chosen.load,
        batch_size=settings.batch_size,
        media=media_settings(settings),
        abilities=chosen.abilities,
        read_text=ocr.ocr_tokens if operation.ocr else None,
        notify=notify,
    )


def media_settings(settings: RunSettings) -> MediaSettings:
    """Returns how the pictures, clips and sounds of a run are read."""
    limits = ImageLimits(max_pixels=settings.max_pixels, allow_truncated=settings.allow_truncated)
    return MediaSettings(images=limits, clips=settings.clips)


@takes_options(OptimizationSettings)
def optimize_shared(
    instruction: str,
    items: Sequence[BatchItem],
    *,
    settings: RunSettings = DEFAULT_RUN,
    optimization: OptimizationSettings = OptimizationSettings(),
    notify: Callable[[str], None] = lambda notice: None,
    on_loaded: Callable[[], None] = lambda: None,
    **options: Unpack[OptimizationOptions],
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
        **options: fields of `OptimizationSettings`, in place of what `optimization` says.

    Raises:
        VlinstructError: no picture can be read (the first one's error), or the model was refused.
    """
    optimization = replace(optimization, **options)
    chosen = ChosenModel(settings, on_loaded)
    media = media_settings(settings)
    require_readers([item.image for item in items])
    failed: dict[int, VlinstructError] = {}  # by the item's place
    # Before the model is loaded: where no picture can be read, that is the error, and it comes at once.
    for place, item in enumerate(items):
        first = read_medium(item, media, chosen.abilities)
        if not isinstance(first, Failed):
            break
        failed[place] = first.error
    else:
        raise failed[0]
    model = chosen.load()

    def read(item: BatchItem) -> LoadedMedium | Failed:
        # In the thread that reads ahead, so that pictures wait for their chunk at the model's size.
        loaded = read_medium(item, media, lambda: model.backend.abilities)
        if isinstance(loaded, Failed):
            return loaded
        return replace(loaded, medium=model.prepare(loaded.medium))

    def chunks() -> Iterator[list[Media]]:
        # Read as often as they are needed, and never all at once: a folder's pictures would not fit into memory.
        places = [place for place in range(len(items)) if place not in failed]
        chunk: list[Media] = []
        pictures = read_ahead([items[place] for place in places], read, num_ahead=settings.batch_size)
        for place, picture in zip(places, pictures, strict=True):
            if isinstance(picture, Failed):
                failed[place] = picture.error
                continue
            for notice in picture.notices:
                notify(notice)
            chunk.append(picture.medium)
            if len(chunk) == settings.batch_size:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    outcome = model.optimize_chunks(instruction, chunks, optimization=optimization)
    failures = [
        {"image": items[place].image, "code": error.code, "message": str(error)}
        for place, error in sorted(failed.items())
    ]
    record: Fields = {
        "schema": SHARED_SCHEMA,
        "id": "shared",
        "status": "ok",
        "images": len(items) - len(failures),
        "backbone": chosen.name,
        **optimization_fields(outcome),
        "revision": model.revision,
        "failed": failures,
    }
    return {name: value for name, value in record.items() if name not in ("revision", "failed") or value}
