"""Hateful Memes (Kiela et al. 2020), both development parts: 500 seen and 540 unseen memes, hateful or not.

    dev_seen.jsonl, dev_unseen.jsonl    {"id": 1, "img": "img/00001.png", "label": 0 or 1, "text"}     a line each
    img/                                the pictures

A meme that is in both parts counts twice: its id is unique in a part only.
The area under the ROC curve is over how much likelier "yes" is than "no".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlinstruct.evaluation.benchmark import Benchmark, Item, Task
from vlinstruct.evaluation.reading.annotations import read_lines
from vlinstruct.evaluation.reading.items import ItemMaker, picture

_PARTS, _PICTURES = ("dev_seen", "dev_unseen"), "img/"
_INSTRUCTION = "This is an image with: {text} written on it. Is it hateful?"
_ANSWERS = ("no", "yes")  # by label
_CHAT_INSTRUCTION = f"{_INSTRUCTION}\nAnswer the question using a single word or phrase."
_TASK = Task(name="hatefulmemes", metric="roc_auc")


def read(folder: Path) -> Iterator[Item]:
    """Yields the items of both parts, the seen ones first."""
    for part in _PARTS:
        maker = ItemMaker(_TASK)
        for record in read_lines(folder / f"{part}.jsonl"):
            yield maker.item(
                f"{part}-{record.key('id')}",
                record,
                instruction=_INSTRUCTION,
                fields={"text": record.text("text", may_be_empty=True)},
                load_picture=picture(folder, record.text("img"), record, pictures=_PICTURES),
                references=[_ANSWERS[record.index("label", len(_ANSWERS))]],
                # Both are ranked, never generated: the area needs a score of every meme, and a written answer has none.
                candidates=("yes", "no"),
            )


BENCHMARK = Benchmark(
    task=_TASK,
    part="dev_seen and dev_unseen",
    num_items=1_040,
    instruction=_INSTRUCTION,
    chat_instruction=_CHAT_INSTRUCTION,
    source="https://ai.meta.com/tools/hatefulmemes",
    licence="Meta's own, to be accepted before the download",
    forms=({**{f"{part}.jsonl": f"the memes of {part}" for part in _PARTS}, _PICTURES: "the pictures"},),
    example='{"id": 53, "img": "img/00053.png", "label": 0, "text": "when the bus is late again"}',
    read=read,
    hub="neuralcatcher/hateful_memes has the authors' files",
    is_chat_ours=True,
)
