"""Reads the words in pictures that annotations have no tokens of, and keeps them beside the records of the run.

FOLDER/  records.jsonl   per picture: its id, its tokens, and what read them

Several processes share the pictures; in the end each has the tokens of all, and so has a later run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vlinstruct.evaluation.benchmark import Benchmark, Item
from vlinstruct.evaluation.parts import RECORDS_FILE, Processes, gather, records_file
from vlinstruct.evaluation.reading.files import read_items
from vlinstruct.evaluation.reading.items import LoadPicture, with_limits
from vlinstruct.media.images import DEFAULT_LIMITS, ImageLimits
from vlinstruct.records.output import open_records
from vlinstruct.records.resume import Target, lines, scan

_SCHEMA = "vlinstruct.ocr/1"


@dataclass(frozen=True, kw_only=True)
class Ocr:
    """What reads pictures, and where it is kept.

    Args:
        read: returns the words in a picture.
        library: what that is, with its version.
        folder: of the tokens; made once there is a picture to read.
        processes: that share the pictures; all of them read the same items.
        progress: takes how many pictures this process reads; gives what is called after each.
        notify: is told what a user should know.
        limits: how large a picture may be, and how whole it must be.
        on_unread: called once it is known that pictures will be read, which takes long: refuses what cannot be run.
    """

    read: Callable[[Image.Image], Sequence[str]]
    library: str
    folder: Path
    processes: Processes
    progress: Callable[[int], AbstractContextManager[Callable[[], None]]]
    notify: Callable[[str], None]
    limits: ImageLimits = DEFAULT_LIMITS
    on_unread: Callable[[], object] = lambda: None


@dataclass(frozen=True, kw_only=True)
class CompleteItems:
    """A benchmark's items, the tokens of some of which an OCR library read.

    Args:
        items: all of them.
        num_pictures: how many pictures were read.
        libraries: by what: of several versions where an earlier run had another.
    """

    items: Sequence[Item]
    num_pictures: int = 0
    libraries: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class _Tokens:
    texts: Sequence[str]
    library: str


def read_completed(benchmark: Benchmark, folder: Path, ocr: Ocr, *, limit: int | None = None) -> CompleteItems:
    """Reads a benchmark's items, and the pictures of those that its files have no tokens of.

    Args:
        benchmark: one that shows OCR tokens.
        folder: where its files are.
        ocr: what reads the pictures.
        limit: take the first so many items; None takes all.

    Raises:
        InputError: the files or a picture cannot be used, or where tokens are kept is something else.
        ResourceError: the tokens cannot be written.
    """
    assert benchmark.with_ocr is not None
    pictures: dict[str, LoadPicture] = {}

    def note(image: str, load_picture: LoadPicture) -> Sequence[str]:
        pictures.setdefault(image, with_limits(load_picture, ocr.limits))
        return ()

    # The annotations are read twice: first to learn which pictures lack tokens, so that processes can share these, then
    # with the tokens.
    read_items(benchmark.with_ocr(note), folder, limit=limit)
    tokens = _read(pictures, ocr) if pictures else {}
    completed = benchmark.with_ocr(lambda image, load_picture: tokens[image].texts)
    return CompleteItems(
        items=read_items(completed, folder, limit=limit),
        num_pictures=len(pictures),
        libraries=sorted({tokens[image].library for image in pictures}),
    )


def _read(pictures: Mapping[str, LoadPicture], ocr: Ocr) -> Mapping[str, _Tokens]:
    """Returns the tokens of all pictures, those read before included; all processes call this."""
    # No version in the key: a resumed run takes the tokens that an earlier version read, and the table names both.
    keys = {image: image for image in pictures}
    ocr.on_unread()
    ocr.folder.mkdir(parents=True, exist_ok=True)
    gather(ocr.folder, keys, ocr.processes)
    tokens = _kept(ocr.folder, keys)
    unread = [image for image in pictures if image not in tokens][ocr.processes.rank :: ocr.processes.count]
    with (
        open_records(records_file(ocr.folder, ocr.processes), schema=_SCHEMA, keys=keys) as writer,
        ocr.progress(len(unread)) as advance,
    ):
        for notice in writer.notices:
            ocr.notify(notice)
        for image in unread:
            texts = list(ocr.read(pictures[image]()))
            writer.write({"schema": _SCHEMA, "id": image, "status": "ok", "tokens": texts, "library": ocr.library})
            advance()
    gather(ocr.folder, keys, ocr.processes)
    return _kept(ocr.folder, keys)


def _kept(folder: Path, keys: Mapping[str, str]) -> Mapping[str, _Tokens]:
    """Returns what is in the file; half a last line does not count."""
    path = folder / RECORDS_FILE
    if not path.exists():
        return {}
    scan(Target(name=str(path), real=str(path), schema=_SCHEMA, keys=keys))
    records = (json.loads(line) for line in lines(str(path)) if line.endswith(b"\n"))
    return {record["id"]: _Tokens(texts=record["tokens"], library=record["library"]) for record in records}
