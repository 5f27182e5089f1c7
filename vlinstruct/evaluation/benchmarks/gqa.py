"""GQA (Hudson and Manning 2019), balanced test-dev: 12,578 questions about scenes.

testdev_balanced_questions.json   {"201": {"question", "answer", "imageId", ...}, ...}
images/                           the pictures, `imageId`.jpg
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlinstruct.evaluation.benchmark import Benchmark
from vlinstruct.evaluation.benchmarks.annotations import read_object
from vlinstruct.evaluation.benchmarks.asking import Asking
from vlinstruct.evaluation.benchmarks.generation import SHORT_ANSWER, SHORT_ANSWER_SOURCE
from vlinstruct.evaluation.benchmarks.picture import picture
from vlinstruct.evaluation.item import Item, Task
from vlinstruct.instruction.templates import fill

_FILE, _PICTURES = "testdev_balanced_questions.json", "images/"
_INSTRUCTION = "Question: {question} \n Short answer:"
_TASK = Task(name="gqa", metric="accuracy", is_ranked=False)


def read(folder: Path) -> Iterator[Item]:
    """Yields the part's items.

    Raises:
        DataError: the annotations cannot be used.
    """
    asking = Asking(_TASK)
    file = read_object(folder / _FILE)
    for name in file.fields:
        record = file.entry(name, "question")
        yield asking.item(
            name,
            record,
            instruction=fill(_INSTRUCTION, question=record.text("question")),
            draw=picture(folder / _PICTURES, f"{record.text('imageId')}.jpg", record),
            references=[record.text("answer")],
        )


BENCHMARK = Benchmark(
    task=_TASK,
    part="test-dev (balanced)",
    num_items=12_578,
    instruction=_INSTRUCTION,
    source="https://cs.stanford.edu/people/dorarad/gqa/download.html",
    licence="not stated with the files (copies of them say CC BY 4.0 or MIT)",
    forms=({_FILE: "the questions, of questions1.2.zip", _PICTURES: "the pictures, of images.zip"},),
    example='{"201": {"question": "What is on the shelf?", "answer": "vase", "imageId": "n15", "isBalanced": true, '
    '"fullAnswer": "The vase is on the shelf."}}',
    generation=SHORT_ANSWER,
    generation_source=SHORT_ANSWER_SOURCE,
    read=read,
)
