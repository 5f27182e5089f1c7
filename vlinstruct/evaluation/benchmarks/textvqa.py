"""TextVQA (Singh et al. 2019), validation: 5,000 questions about what is written, ten answers each.

    TextVQA_0.5.1_val.json              {"data": [{"question_id", "image_id", "question", "answers": [ten texts]}, ...]}
    TextVQA_Rosetta_OCR_v0.2_val.json   {"data": [{"image_id", "ocr_tokens": [text, ...]}, ...]}
    train_images/                       the pictures, `image_id`.jpg: the train archive holds these too

On the hub a row has a question's fields under the same names, its picture and the tokens of that.
The instruction shows the first 30 OCR tokens, joined by commas (LAVIS, `predict_answers`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vlinstruct.evaluation.benchmark import Benchmark, HubCopy
from vlinstruct.evaluation.benchmarks.annotations import read_object
from vlinstruct.evaluation.benchmarks.asking import Asking, ten_answers
from vlinstruct.evaluation.benchmarks.generation import SHORT_ANSWER, SHORT_ANSWER_SOURCE
from vlinstruct.evaluation.benchmarks.hub_table import read_rows
from vlinstruct.evaluation.benchmarks.picture import Draw, picture
from vlinstruct.evaluation.benchmarks.record import Record, bad_annotation
from vlinstruct.evaluation.item import Item, Task
from vlinstruct.instruction.templates import fill

_FILE, _OCR_FILE, _PICTURES = "TextVQA_0.5.1_val.json", "TextVQA_Rosetta_OCR_v0.2_val.json", "train_images/"
_INSTRUCTION = "OCR tokens: {tokens} Question: {question} \n Short answer:"
_MAX_OCR_TOKENS = 30
_PART = "val"
_TASK = Task(name="textvqa", metric="vqa_accuracy", is_ranked=False)


def read(folder: Path) -> Iterator[Item]:
    """Yields the validation part's items.

    Raises:
        DataError: the annotations cannot be used.
    """
    asking = Asking(_TASK)
    tokens = _ocr_tokens(folder / _OCR_FILE)
    for record in read_object(folder / _FILE).records("data", "question"):
        _require_part(record)
        image = record.text("image_id")
        if image not in tokens:
            raise bad_annotation(record.place, f"{_OCR_FILE} holds no tokens of its image {image}")
        yield _item(asking, record, tokens[image], picture(folder / _PICTURES, f"{image}.jpg", record))


def read_copy(folder: Path) -> Iterator[Item]:
    """Yields the same items from a copy on the hub.

    Raises:
        DataError: its tables cannot be used.
    """
    asking = Asking(_TASK)
    for row in read_rows(folder, _COPY.split, columns=_COPY.columns, picture="image", optional=["set_name"]):
        _require_part(row)
        yield _item(asking, row, row.texts("ocr_tokens")[:_MAX_OCR_TOKENS], row.picture("image"))


def _item(asking: Asking, record: Record, tokens: Sequence[str], draw: Draw) -> Item:
    return asking.item(
        record.key("question_id"),
        record,
        instruction=fill(_INSTRUCTION, tokens=", ".join(tokens), question=record.text("question")),
        draw=draw,
        references=ten_answers(record.texts("answers"), record),
    )


def _require_part(record: Record) -> None:
    found = record.fields.get("set_name", _PART)
    if found not in (_PART, _COPY.split):
        raise bad_annotation(record.place, f"it is of another part than '{_PART}'", code="other_part")


def _ocr_tokens(path: Path) -> dict[str, tuple[str, ...]]:
    """Returns the tokens that are shown, by image."""
    records = read_object(path).records("data", "image")
    return {record.text("image_id"): record.texts("ocr_tokens")[:_MAX_OCR_TOKENS] for record in records}


_COPY = HubCopy(split="validation", columns=("question_id", "question", "answers", "ocr_tokens"), read=read_copy)
BENCHMARK = Benchmark(
    task=_TASK,
    part=_PART,
    num_items=5_000,
    instruction=_INSTRUCTION,
    source="https://textvqa.org/dataset",
    licence="CC BY 4.0",
    forms=(
        {
            _FILE: "the questions",
            _OCR_FILE: "what Rosetta read in the pictures",
            _PICTURES: "the pictures, of train_val_images.zip",
        },
    ),
    example='{"question_id": 34602, "image_id": "00ab", "question": "What does the sign say?", "set_name": "val", '
    '"answers": ["stop", "stop", "stop", "stop", "stop", "stop", "stop now", "halt", "stop", "stop"]}',
    generation=SHORT_ANSWER,
    generation_source=SHORT_ANSWER_SOURCE,
    read=read,
    hub="lmms-lab/textvqa, validation",
    copy=_COPY,
)
