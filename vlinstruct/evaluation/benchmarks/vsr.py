"""Visual Spatial Reasoning (Liu et al. 2023), zero-shot split: 1,222 statements about positions, true or false.

    test.jsonl   {"image": "000000000001.jpg", "caption", "label": 0 or 1, ...}     a line each
    images/      the pictures, of COCO 2017

The authors' copy on the hub is these lines; a table of the same fields with the pictures in it is read, too.

The authors' README says 616 statements: that was an earlier release.
Where we differ: LAVIS takes "yes" and "no" for right too; here the answer is what is asked for, "true" or "false".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlinstruct.evaluation.benchmark import Benchmark, HubCopy, Item, Task
from vlinstruct.evaluation.reading.annotations import Record, read_lines
from vlinstruct.evaluation.reading.hub_tables import read_rows
from vlinstruct.evaluation.reading.items import ItemMaker, LoadPicture, picture

_FILE, _PICTURES = "test.jsonl", "images/"
_INSTRUCTION = "Based on the image, is this statement true or false? {statement}"
_ANSWERS = ("false", "true")
_CHAT_INSTRUCTION = f"{_INSTRUCTION}\nAnswer the question using a single word or phrase."
_TASK = Task(name="vsr", metric="accuracy")


def read(folder: Path) -> Iterator[Item]:
    """Yields the test part's items; their ids are the lines' places, since the records have none."""
    maker = ItemMaker(_TASK)
    for number, record in enumerate(read_lines(folder / _FILE), start=1):
        statement = record.text("caption")
        yield _item(maker, record, number, statement, picture(folder / _PICTURES, record.text("image"), record))


def read_copy(folder: Path) -> Iterator[Item]:
    """Yields the same items from a table with the pictures."""
    maker = ItemMaker(_TASK)
    for number, row in enumerate(read_rows(folder, _COPY.split, columns=_COPY.columns, picture="image"), start=1):
        yield _item(maker, row, number, row.text("caption"), row.picture("image"))


def _item(maker: ItemMaker, record: Record, number: int, statement: str, load_picture: LoadPicture) -> Item:
    return maker.item(
        str(number),
        record,
        instruction=_INSTRUCTION,
        fields={"statement": statement},
        load_picture=load_picture,
        references=[_ANSWERS[record.index("label", len(_ANSWERS))]],
    )


_COPY = HubCopy(split="test", columns=("caption", "label"), read=read_copy)
BENCHMARK = Benchmark(
    task=_TASK,
    part="test (zero-shot split)",
    num_items=1_222,
    instruction=_INSTRUCTION,
    chat_instruction=_CHAT_INSTRUCTION,
    source="https://github.com/cambridgeltl/visual-spatial-reasoning, data/splits/zeroshot",
    licence="Apache-2.0 (the authors' copy on the hub says CC BY 4.0)",
    forms=({_FILE: "the statements of the zero-shot split", _PICTURES: "the pictures, of COCO 2017"},),
    example='{"image": "000000000001.jpg", "caption": "The cat is under the table.", "label": 1, "relation": "under"}',
    generation_note="that statements are answered so is ours",
    read=read,
    hub="cambridgeltl/vsr_zeroshot has the authors' test.jsonl, no pictures",
    copy=_COPY,
    is_chat_ours=True,
)
