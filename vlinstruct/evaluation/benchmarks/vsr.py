"""Visual Spatial Reasoning (Liu et al. 2023), zero-shot split: 1,222 statements about positions, true or false.

    test.jsonl   {"image": "000000000001.jpg", "caption", "label": 0 or 1, ...}     a line each
    images/      the pictures, of COCO 2017

The authors' README says 616 statements: that was an earlier release.
Where we differ: LAVIS takes "yes" and "no" for right too; here the answer is what is asked for, "true" or "false".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlinstruct.evaluation.benchmark import Benchmark
from vlinstruct.evaluation.benchmarks.annotations import read_lines
from vlinstruct.evaluation.benchmarks.asking import Asking
from vlinstruct.evaluation.benchmarks.generation import SHORT_ANSWER, SHORT_ANSWER_SOURCE
from vlinstruct.evaluation.benchmarks.picture import picture
from vlinstruct.evaluation.item import Item, Task
from vlinstruct.instruction.templates import fill

_FILE, _PICTURES = "test.jsonl", "images/"
_INSTRUCTION = "Based on the image, is this statement true or false? {statement}"
_ANSWERS = ("false", "true")
_TASK = Task(name="vsr", metric="accuracy", is_ranked=False)


def read(folder: Path) -> Iterator[Item]:
    """Yields the test part's items; their ids are the lines' places, since the records have none.

    Raises:
        DataError: the annotations cannot be used.
    """
    asking = Asking(_TASK)
    for number, record in enumerate(read_lines(folder / _FILE), start=1):
        yield asking.item(
            str(number),
            record,
            instruction=fill(_INSTRUCTION, statement=record.text("caption")),
            draw=picture(folder / _PICTURES, record.text("image"), record),
            references=[_ANSWERS[record.index("label", len(_ANSWERS))]],
        )


BENCHMARK = Benchmark(
    task=_TASK,
    part="test (zero-shot split)",
    num_items=1_222,
    instruction=_INSTRUCTION,
    source="https://github.com/cambridgeltl/visual-spatial-reasoning, data/splits/zeroshot",
    licence="Apache-2.0",
    forms=({_FILE: "the statements of the zero-shot split", _PICTURES: "the pictures, of COCO 2017"},),
    example='{"image": "000000000001.jpg", "caption": "The cat is under the table.", "label": 1, "relation": "under"}',
    generation=SHORT_ANSWER,
    generation_source=f"{SHORT_ANSWER_SOURCE}; that statements are answered so is ours",
    read=read,
)
