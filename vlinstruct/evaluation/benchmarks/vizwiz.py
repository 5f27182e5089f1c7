"""VizWiz VQA (Gurari et al. 2018), validation: 4,319 questions of people who are blind, ten answers each.

    val.json   [{"image": "VizWiz_val_00000000.jpg", "question", "answers": [{"answer"}, ... ten], ...}, ...]
    val/       the pictures

On the hub a row has `question_id` (the picture's name without its end), `question`, `answers` as texts, the picture.

The paper says test-dev, whose answers are not public; its number of items is that of the validation part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vlinstruct.evaluation.benchmark import Benchmark, HubCopy, Item, Task
from vlinstruct.evaluation.reading.annotations import Record, read_list
from vlinstruct.evaluation.reading.hub_tables import read_rows
from vlinstruct.evaluation.reading.items import ItemMaker, LoadPicture, picture, ten_answers

_FILE, _PICTURES = "val.json", "val/"
_INSTRUCTION = (
    "Answer the question based on the image. Reply in one phrase/word or say 'unanswerable'. "
    "Question: {question} \n Short answer:"
)
_CHAT_INSTRUCTION = (
    "{question}\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n"
    "Answer the question using a single word or phrase."
)
_TASK = Task(name="vizwiz", metric="vqa_accuracy")


def read(folder: Path) -> Iterator[Item]:
    """Yields the validation part's items, named for their pictures: each has one question."""
    maker = ItemMaker(_TASK)
    for record in read_list(folder / _FILE, "question"):
        path = record.text("image")
        # An empty answer is one of the ten all the same.
        answers = [answer.text("answer", may_be_empty=True) for answer in record.records("answers", "answer")]
        yield _item(maker, record, Path(path).stem, answers, picture(folder / _PICTURES, path, record))


def read_copy(folder: Path) -> Iterator[Item]:
    """Yields the same items from a copy on the hub."""
    maker = ItemMaker(_TASK)
    for row in read_rows(folder, _COPY.split, columns=_COPY.columns, picture="image"):
        yield _item(maker, row, row.text("question_id"), row.texts("answers"), row.picture("image"))


def _item(maker: ItemMaker, record: Record, name: str, answers: Sequence[str], load_picture: LoadPicture) -> Item:
    return maker.item(
        name,
        record,
        instruction=_INSTRUCTION,
        fields={"question": record.text("question")},
        load_picture=load_picture,
        references=ten_answers(answers, record),
    )


_COPY = HubCopy(
    split="val",
    columns=("question_id", "question", "answers"),
    read=read_copy,
    hub_ids=("lmms-lab-encoder/VizWiz-VQA", "lmms-lab/VizWiz-VQA"),
)
BENCHMARK = Benchmark(
    task=_TASK,
    part="val",
    num_items=4_319,
    instruction=_INSTRUCTION,
    chat_instruction=_CHAT_INSTRUCTION,
    source="https://vizwiz.org/tasks-and-datasets/vqa",
    licence="CC BY 4.0",
    forms=({_FILE: "the questions, of Annotations.zip", _PICTURES: "the pictures, of val.zip"},),
    example='{"image": "VizWiz_val_00000007.jpg", "question": "What is this?", "answers": ['
    + ", ".join(f'{{"answer": "{answer}", "answer_confidence": "yes"}}' for answer in ["tea"] * 6 + ["green tea"] * 4)
    + '], "answer_type": "other", "answerable": 1}',
    read=read,
    hub="lmms-lab-encoder/VizWiz-VQA (until July 2026 lmms-lab/VizWiz-VQA), val",
    copy=_COPY,
)
