"""GQA (Hudson and Manning 2019), balanced test-dev: 12,578 questions about scenes.

testdev_balanced_questions.json   {"201": {"question", "answer", "imageId", ...}, ...}
images/                           the pictures, `imageId`.jpg

On the hub the questions are one table, with their `id`, and the pictures another, under theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlinstruct.errors import shortened
from vlinstruct.evaluation.benchmark import Benchmark, HubCopy, Item, Task
from vlinstruct.evaluation.reading.annotations import Record, read_object
from vlinstruct.evaluation.reading.hub_tables import read_rows
from vlinstruct.evaluation.reading.items import ItemMaker, LoadPicture, picture

_FILE, _PICTURES = "testdev_balanced_questions.json", "images/"
_INSTRUCTION = "Question: {question} \n Short answer:"
_CONFIG = "testdev_balanced"
_CHAT_INSTRUCTION = "{question}\nAnswer the question using a single word or phrase."
_TASK = Task(name="gqa", metric="accuracy")


def read(folder: Path) -> Iterator[Item]:
    """Yields the part's items."""
    maker = ItemMaker(_TASK)
    file = read_object(folder / _FILE)
    for name in file.fields:
        record = file.entry(name, "question")
        load_picture = picture(folder / _PICTURES, f"{record.text('imageId')}.jpg", record)
        yield _item(maker, record, name, load_picture)


def read_copy(folder: Path) -> Iterator[Item]:
    """Yields the same items from a copy on the hub."""
    maker = ItemMaker(_TASK)
    # Several questions share a picture. What is kept is where each picture stands; it is read when it is asked for.
    rows = read_rows(folder, _COPY.split, columns=["id"], picture="image", config=f"{_CONFIG}_images")
    pictures = {row.key("id"): row.picture("image") for row in rows}
    for row in read_rows(folder, _COPY.split, columns=_COPY.columns, config=f"{_CONFIG}_instructions"):
        image = row.key("imageId")
        if image not in pictures:
            raise row.error(f"{_CONFIG}_images holds no picture {shortened(image, 40)}")
        yield _item(maker, row, row.key("id"), pictures[image])


def _item(maker: ItemMaker, record: Record, name: str, load_picture: LoadPicture) -> Item:
    return maker.item(
        name,
        record,
        instruction=_INSTRUCTION,
        fields={"question": record.text("question")},
        load_picture=load_picture,
        references=[record.text("answer")],
    )


_COPY = HubCopy(
    split="testdev",
    columns=("id", "imageId", "question", "answer"),
    read=read_copy,
    hub_ids=("lmms-lab-encoder/GQA", "lmms-lab/GQA"),
)
BENCHMARK = Benchmark(
    task=_TASK,
    part="test-dev (balanced)",
    num_items=12_578,
    instruction=_INSTRUCTION,
    chat_instruction=_CHAT_INSTRUCTION,
    source="https://cs.stanford.edu/people/dorarad/gqa/download.html",
    licence="not stated with the files (copies of them say CC BY 4.0 or MIT)",
    forms=({_FILE: "the questions, of questions1.2.zip", _PICTURES: "the pictures, of images.zip"},),
    example='{"201": {"question": "What is on the shelf?", "answer": "vase", "imageId": "n15", "isBalanced": true, '
    '"fullAnswer": "The vase is on the shelf."}}',
    read=read,
    hub=f"lmms-lab-encoder/GQA (until July 2026 lmms-lab/GQA), {_CONFIG}_instructions and {_CONFIG}_images",
    copy=_COPY,
)
