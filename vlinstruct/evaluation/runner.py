"""Runs models over a benchmark's items and writes a record for each; resumes an earlier run.

FOLDER/  records.jsonl   per model, kind of words and item: the three instructions, their IAS, their answers
         times.jsonl     per chunk: what each stage took; clocks differ, so they are kept apart
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from vlinstruct.evaluation.answering import SCHEMA, Answered, answer
from vlinstruct.evaluation.benchmark import WORDS, Item, Words
from vlinstruct.files import written_atomically
from vlinstruct.model import Model
from vlinstruct.records.output import RecordWriter, open_records
from vlinstruct.records.resume import Target, scan
from vlinstruct.settings import GenerationSettings

RECORDS_FILE, TIMES_FILE = "records.jsonl", "times.jsonl"
_PART = "records-{}.part.jsonl"


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The processes that share an evaluation.

    Args:
        rank: this one's number, from 0; that one is the main one.
        count: how many there are.
        wait: waits for all.
    """

    rank: int = 0
    count: int = 1
    wait: Callable[[], None] = lambda: None


ALONE = Processes()


def records_file(folder: Path, processes: Processes) -> Path:
    """Returns the file that this process writes."""
    return folder / (RECORDS_FILE if processes.count == 1 else _PART.replace("{}", str(processes.rank)))


def gather(folder: Path, keys: Mapping[str, str], processes: Processes) -> None:
    """Puts the records of all parts into one file, in the order of `keys`; the parts go. All processes call this.

    Args:
        folder: the evaluation's.
        keys: every record's key by its id, in the order in which one process alone would write them.
        processes: the main one does it, the others wait.
    """
    processes.wait()
    parts = sorted(folder.glob(_PART.replace("{}", "*")))
    if processes.rank == 0 and parts:
        whole = [folder / RECORDS_FILE, *parts]
        lines = {name: line for path in whole if path.exists() for name, line in _lines(path).items()}
        order = {name: place for place, name in enumerate(keys)}
        with written_atomically(folder / RECORDS_FILE) as path:
            path.write_bytes(
                b"".join(lines[name] for name in sorted(lines, key=lambda name: order.get(name, len(order))))
            )
        for part in parts:
            part.unlink()
    processes.wait()


def _lines(path: Path) -> dict[str, bytes]:
    """Returns a file's whole lines by their records' id; half a last line does not count."""
    whole = (line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n"))
    return {str(json.loads(line)["id"]): line for line in whole}


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
        facts: what every record says of the run beside its item: seed, versions.
        processes: that share the chunks; all of them call this. The records are the same for any number.
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
    gather(folder, keys, processes)
    done = _done(folder, keys) if processes.count > 1 else frozenset()
    with (
        open_records(records_file(folder, processes), schema=SCHEMA, keys=keys) as writer,
        (folder / TIMES_FILE).open("a", encoding="utf-8") as times,
    ):
        for notice in writer.notices:
            notify(notice)
        for model in models:
            load = cache(model.load)
            for chunk in chunks[processes.rank :: processes.count]:
                names = [f"{model.name}/{chunk.words}/{item.id}" for item in chunk.items]
                if not all(keys[name] in done or writer.is_done(name) for name in names):
                    answered = answer(
                        load(),
                        chunk.items,
                        chunk.words,
                        prefix=model.name,
                        generation=generation[chunk.task],
                        facts=facts,
                    )
                    _keep(answered, {"model": model.name, "words": chunk.words, "task": chunk.task}, writer, times)
                for _ in chunk.items:
                    on_item()
    gather(folder, keys, processes)


def _keep(answered: Answered, of: Mapping[str, str], writer: RecordWriter, times: TextIO) -> None:
    """Writes a chunk's records, and what they took."""
    for record in answered.records:
        if not writer.is_done(record["id"]):
            writer.write(record)
    times.write(json.dumps({**of, **asdict(answered.times)}) + "\n")
    times.flush()


def _done(folder: Path, keys: Mapping[str, str]) -> frozenset[str]:
    """Returns the keys of the records that all processes may skip."""
    path = folder / RECORDS_FILE
    if not path.exists():
        return frozenset()
    return scan(Target(name=str(path), real=str(path), schema=SCHEMA, keys=keys)).done


def _chunks(tasks: Mapping[str, Sequence[Item]], batch_size: int) -> Iterator[_Chunk]:
    for words in WORDS:
        for items in tasks.values():
            in_words = [item for item in items if words in item.instructions]
            for start in range(0, len(in_words), batch_size):
                yield _Chunk(words=words, items=in_words[start : start + batch_size])


def _key(model: Contender, chunk: _Chunk, item: Item, generation: GenerationSettings) -> str:
    """Identifies what a record is computed from, except the picture, which the item's id stands for."""
    parts = [model.fingerprint, item.id, item.instructions[chunk.words], item.candidates, asdict(generation)]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]
