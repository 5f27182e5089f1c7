"""Runs models over a benchmark's items and writes a record for each; resumes an earlier run.

FOLDER/  records.jsonl   per model, kind of words and item: the three instructions, their IAS, their answers
         times.jsonl     per chunk: what each stage took; clocks differ, so they are kept apart

Several processes share the chunks (`parts`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from vlinstruct.errors import MAX_MESSAGE_CHARACTERS, ImageError, shortened
from vlinstruct.evaluation.answering import SCHEMA, answer
from vlinstruct.evaluation.benchmark import WORDS, Item, Words
from vlinstruct.evaluation.parts import (
    ALONE,
    RECORDS_FILE,
    TIMES_FILE,
    Processes,
    gather,
    records_file,
    remove_parts,
    remove_records,
)
from vlinstruct.model import Model
from vlinstruct.records.output import open_records
from vlinstruct.records.resume import Target, scan
from vlinstruct.settings import GenerationSettings


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A row of the table.

    Args:
        name: what it is called.
        fingerprint: of its weights.
        load: loads it.
    """

    name: str
    fingerprint: str
    load: Callable[[], Model]


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    words: Words
    items: Sequence[Item]

    @property
    def task(self) -> str:
        return self.items[0].task


def run(
    models: Sequence[Contender],
    tasks: Mapping[str, Sequence[Item]],
    folder: Path,
    *,
    batch_size: int,
    generation: Mapping[str, GenerationSettings],
    facts: Mapping[str, Any] = MappingProxyType({}),
    processes: Processes = ALONE,
    skip_images: int | None = None,
    overwrite: bool = False,
    on_item: Callable[[], None] = lambda: None,
    notify: Callable[[str], None] = lambda notice: None,
) -> None:
    """Answers every item with every model in all kinds of words.

    A chunk of which a record is missing is computed again as a whole: the last decimals depend on who shares it.

    Args:
        models: in the order in which they run; one is loaded at a time.
        tasks: items by task.
        folder: where the records go; made when the first model is loaded.
        batch_size: items that go through a model together.
        generation: how answers are generated, by task.
        facts: what every record says of the run beside its item: seed, versions.
        processes: that share the chunks; all of them call this. The records are the same for any number.
        skip_images: items that a process may leave out because their pictures cannot be read; None for any number.
        overwrite: replace what an earlier run left in the folder; it stays as it was until the first chunk is answered,
            of several processes until all have loaded their first model.
        on_item: called for every item that is finished.
        notify: is told what a user should know.

    Raises:
        InputError: the folder holds records of another run, or more pictures cannot be read than may be left out.
        ResourceError: they cannot be written.
    """
    chunks = []
    for words in WORDS:
        for items in tasks.values():
            in_words = [item for item in items if words in item.instructions]
            for start in range(0, len(in_words), batch_size):
                chunks.append(_Chunk(words=words, items=in_words[start : start + batch_size]))
    keys = {
        f"{model.name}/{chunk.words}/{item.id}": _key(model, chunk, item, generation[item.task])
        for model in models
        for chunk in chunks
        for item in chunk.items
    }
    path, done = folder / RECORDS_FILE, frozenset[str]()
    if not overwrite:
        gather(folder, keys, processes)
        # A process's writer knows its own part only; what all of them may skip stands in the whole file.
        if path.exists():
            done = scan(Target(name=str(path), real=str(path), schema=SCHEMA, keys=keys)).done

    def is_done(model: Contender, chunk: _Chunk) -> bool:
        return all(f"{model.name}/{chunk.words}/{item.id}" in done for item in chunk.items)

    # Every count-th chunk, not a run of them: tasks differ in cost, and so each process has its share of all.
    share = chunks[processes.rank :: processes.count]
    # Loaded before anything is written or removed: what is refused leaves the folder as it was.
    first = next((model for model in models if not all(is_done(model, chunk) for chunk in share)), None)
    loaded = {} if first is None else {first.name: first.load()}
    folder.mkdir(parents=True, exist_ok=True)
    if overwrite and processes.count > 1:
        remove_records(folder, processes)
    replaces = overwrite and processes.count == 1
    with ExitStack() as files:
        writer = files.enter_context(
            open_records(records_file(folder, processes), schema=SCHEMA, keys=keys, overwrite=replaces)
        )
        for notice in writer.notices:
            notify(notice)
        times: TextIO | None = None
        unreadable: dict[str, str] = {}  # why, by the item's id
        for model in models:
            # At the first chunk that has to be computed, if there is any; one model is in memory at a time.
            load = cache(partial(loaded.pop, model.name) if model is first else model.load)
            for chunk in share:
                if not is_done(model, chunk):
                    answered = answer(
                        load(),
                        chunk.items,
                        chunk.words,
                        prefix=model.name,
                        generation=generation[chunk.task],
                        facts=facts,
                    )
                    if times is None:
                        if replaces:
                            remove_parts(folder)
                        times = files.enter_context(
                            (folder / TIMES_FILE).open("w" if replaces else "a", encoding="utf-8")
                        )
                    for record in answered.records:
                        if not writer.is_done(record["id"]):  # of a chunk that a killed run had begun
                            writer.write(record)
                    if answered.times is not None:
                        chunk_facts = {"model": model.name, "words": chunk.words, "task": chunk.task}
                        times.write(json.dumps({**chunk_facts, **asdict(answered.times)}) + "\n")
                        times.flush()
                    for record in answered.records:
                        item_id = record["id"].rsplit("/", 1)[1]
                        if record["status"] != "ok" and item_id not in unreadable:
                            unreadable[item_id] = record["message"]
                            notify(record["message"])
                    if skip_images is not None and len(unreadable) > skip_images:
                        raise _too_many(unreadable, skip_images)
                for _ in chunk.items:
                    on_item()
    gather(folder, keys, processes)


def _too_many(unreadable: Mapping[str, str], skip_images: int) -> ImageError:
    more = f" ({len(unreadable)} items cannot be read, --skip-images allows {skip_images})"
    first = shortened(next(iter(unreadable.values())), MAX_MESSAGE_CHARACTERS - len(more))
    return ImageError(first + more, code="image_unreadable")


def _key(model: Contender, chunk: _Chunk, item: Item, generation: GenerationSettings) -> str:
    """Identifies what a record is computed from, except the picture, which the item's id stands for."""
    parts = [model.fingerprint, item.id, item.instructions[chunk.words], item.candidates, asdict(generation)]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]
