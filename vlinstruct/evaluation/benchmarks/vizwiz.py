"""VizWiz VQA (Gurari et al. 2018), validation: 4,319 questions of people who are blind, ten answers each.

    val.json   [{"image": "VizWiz_val_00000000.jpg", "question", "answers": [{"answer"}, ... ten], ...}, ...]
    val/       the pictures

The paper says test-dev, whose answers are not public; its number of items is that of the validation part.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlinstruct.evaluation.benchmark import Benchmark
from vlinstruct.evaluation.benchmarks.annotations import read_list
from vlinstruct.evaluation.benchmarks.asking import Asking, ten_answers
from vlinstruct.evaluation.benchmarks.generation import SHORT_ANSWER, SHORT_ANSWER_SOURCE
from vlinstruct.evaluation.benchmarks.picture import picture
from vlinstruct.evaluation.item import Item, Task
from vlinstruct.instruction.templates import fill

_FILE, _PICTURES = "val.json", "val/"
_INSTRUCTION = (
    "Answer the question based on the image. Reply in one phrase/word or say 'unanswerable'. "
    "Question: {question} \n Short answer:"
)
_TASK = Task(name="vizwiz", metric="vqa_accuracy", is_ranked=False)


def read(folder: Path) -> Iterator[Item]:
    """Yields the validation part's items, named for their pictures: each has one question.

    Raises:
        DataError: the annotations cannot be used.
    """
    asking = Asking(_TASK)
    for record in read_list(folder / _FILE, "question"):
        path = record.text("image")
        answers = [one.text("answer", may_be_empty=True) for one in record.records("answers", "answer")]
        yield asking.item(
            Path(path).stem,
            record,
            instruction=fill(_INSTRUCTION, question=record.text("question")),
            draw=picture(folder / _PICTURES, path, record),
            references=ten_answers(answers, record),
        )


BENCHMARK = Benchmark(
    task=_TASK,
    part="val",
    num_items=4_319,
    instruction=_INSTRUCTION,
    source="https://vizwiz.org/tasks-and-datasets/vqa",
    licence="CC BY 4.0",
    forms=({_FILE: "the questions, of Annotations.zip", _PICTURES: "the pictures, of val.zip"},),
    example='{"image": "VizWiz_val_00000007.jpg", "question": "What is this?", "answers": ['
    + ", ".join(f'{{"answer": "{answer}", "answer_confidence": "yes"}}' for answer in ["tea"] * 6 + ["green tea"] * 4)
    + '], "answer_type": "other", "answerable": 1}',
    generation=SHORT_ANSWER,
    generation_source=SHORT_ANSWER_SOURCE,
    read=read,
)
