"""What an official benchmark is: where its files come from, what they hold, how it is asked and scored. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlinstruct.evaluation.benchmarks.picture import Draw
from vlinstruct.evaluation.item import Item, Task
from vlinstruct.settings import GenerationSettings

ReadText = Callable[[str, Draw], Sequence[str]]
"""Returns the tokens of a picture, given what it is called and how it is drawn."""


@dataclass(frozen=True, kw_only=True)
class HubCopy:
    """A benchmark as a data set on Hugging Face's hub: tables, parquet or Arrow, whose rows hold the pictures.

    Args:
        split: the part's name there.
        columns: what is read of a row.
        read: yields all items of the part, given the benchmark's folder.
    """

    split: str
    columns: Sequence[str]
    read: Callable[[Path], Iterator[Item]]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark that its authors publish as files.

    Args:
        task: its name, its metric, and whether it ranks candidates.
        part: which part of it is scored, in its authors' words.
        num_items: how many items that part has.
        instruction: what is asked, with the fields that an item fills.
        source: where people get it.
        licence: of its annotations, as its authors say.
        forms: what is read, by path in the benchmark's folder, and what each is; a path that ends with a slash is a
            folder. One mapping for each form in which it is published: any of them is enough.
        example: one record of its annotations, as its authors write it.
        generation: how its answers are generated.
        generation_source: where these settings come from.
        read: yields all items of the part, given the benchmark's folder.
        hub: where copies are on Hugging Face's hub, and what they lack.
        copy: how these are read; None where none holds what is needed, or where they are the authors' files.
        with_ocr: gives the benchmark with files that may lack OCR tokens, for which it asks then; None where it shows
            none.
    """

    task: Task
    part: str
    num_items: int
    instruction: str
    source: str
    licence: str
    forms: Sequence[Mapping[str, str]]
    example: str
    generation: GenerationSettings
    generation_source: str
    read: Callable[[Path], Iterator[Item]]
    hub: str
    copy: HubCopy | None = None
    with_ocr: Callable[[ReadText], Benchmark] | None = None
