"""Runs models over a benchmark's items and writes a record for each; an earlier run is gone on with.

FOLDER/  records.jsonl   per model, kind of words and item: the three instructions, their IAS, their answers
         times.jsonl     per chunk: what each stage took; clocks differ, so they are kept apart
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vlinstruct.config import GenerationConfig
from vlinstruct.data.record_files import open_records
from vlinstruct.evaluation.answering import SCHEMA, answer
from vlinstruct.evaluation.item import WORDS, Item, Words
from vlinstruct.pipeline import Pipeline

RECORDS_FILE, TIMES_FILE = "records.jsonl", "times.jsonl"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A row of the table.

    Args:
        name: what it is called.
        fingerprint: of its weights.
        load: loads it.
    """

    name: str
    fingerprint: str
    load: Callable[[], Pipeline]


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    words: Words
    items: Sequence[Item]


def run(
    models: Sequence[Model],
    tasks: Mapping[str, Sequence[Item]],
    folder: Path,
    *,
    batch_size: int,
    generation: Mapping[str, GenerationConfig],
    on_item: Callable[[], None] = lambda: None,
    notify: Callable[[str], None] = lambda notice: None,
) -> None:
    """Answers every item with every model in all kinds of words.

    A chunk is whole in the file or computed again as a whole: the last decimals depend on who shares it.

    Args:
        models: in the order in which they run; one is loaded at a time.
        tasks: items by task.
        folder: where the records go; exists.
        batch_size: items that go through a model together.
        generation: how answers are generated, by task.
        on_item: called for every item that is finished.
        notify: is told what a user should know.

    Raises:
        InputError: the folder holds records of another run.
        ResourceError: they cannot be written.
    """
    chunks = list(_chunks(tasks, batch_size))
    keys = {
        f"{model.name}/{chunk.words}/{item.id}": _key(model, chunk, item, generation[item.task])
        for model in models
        for chunk in chunks
        for item in chunk.items
    }
    with (
        open_records(folder / RECORDS_FILE, schema=SCHEMA, keys=keys) as writer,
        (folder / TIMES_FILE).open("a", encoding="utf-8") as times,
    ):
        for notice in writer.notices:
            notify(notice)
        for model in models:
            pipeline: Pipeline | None = None
            for chunk in chunks:
                new = [item for item in chunk.items if not writer.is_done(f"{model.name}/{chunk.words}/{item.id}")]
                if new:
                    pipeline = pipeline or model.load()
                    how = generation[chunk.items[0].task]
                    answered = answer(pipeline, chunk.items, chunk.words, prefix=model.name, generation=how)
                    for record in answered.records:
                        if not writer.is_done(record["id"]):
                            writer.write(record)
                    taken = {"model": model.name, "words": chunk.words, "task": chunk.items[0].task}
                    times.write(json.dumps({**taken, **asdict(answered.times)}) + "\n")
                    times.flush()
                for _ in chunk.items:
                    on_item()


def _chunks(tasks: Mapping[str, Sequence[Item]], batch_size: int) -> Iterator[_Chunk]:
    for words in WORDS:
        for items in tasks.values():
            asked = [item for item in items if words in item.instructions]
            for start in range(0, len(asked), batch_size):
                yield _Chunk(words=words, items=asked[start : start + batch_size])


def _key(model: Model, chunk: _Chunk, item: Item, generation: GenerationConfig) -> str:
    """Identifies what a record is computed from, except the picture, which the item's id stands for."""
    asked = [model.fingerprint, item.id, item.instructions[chunk.words], item.candidates, asdict(generation)]
    return hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()[:16]
