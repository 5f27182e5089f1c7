"""IconQA (Lu et al. 2021), choose-text test part: 6,316 questions about abstract diagrams with two to five options.

problems.json, pid_splits.json    {"12": {"question", "choices", "answer": place}, ...}, {"choose_txt_test": ["12"]}
iconqa/test/choose_txt/12/        data.json (that problem; read where the two files are not there), image.png
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlinstruct.evaluation.benchmark import Benchmark
from vlinstruct.evaluation.benchmarks.annotations import read_object
from vlinstruct.evaluation.benchmarks.asking import Asking, choices_of, options
from vlinstruct.evaluation.benchmarks.generation import RANKED, RANKED_SOURCE
from vlinstruct.evaluation.benchmarks.picture import picture
from vlinstruct.evaluation.benchmarks.problems import PROBLEMS_FILE, SPLITS_FILE, read_problems
from vlinstruct.evaluation.benchmarks.record import Record
from vlinstruct.evaluation.item import Item, Task
from vlinstruct.instruction.templates import fill

_FOLDER, _DATA_FILE, _PICTURE = "iconqa/test/choose_txt/", "data.json", "image.png"
_INSTRUCTION = "Question: {question} Options: {options} \n Answer:"
_TASK = Task(name="iconqa", metric="ranked_accuracy", is_ranked=True)


def read(folder: Path) -> Iterator[Item]:
    """Yields the test part's items.

    Raises:
        DataError: the annotations cannot be used.
    """
    asking = Asking(_TASK)
    has_files = all((folder / name).exists() for name in (PROBLEMS_FILE, SPLITS_FILE))
    for name, record in read_problems(folder, "choose_txt_test") if has_files else _folders(folder / _FOLDER):
        choices = choices_of(record)
        yield asking.item(
            name,
            record,
            instruction=fill(_INSTRUCTION, question=record.text("question"), options=options(choices)),
            draw=picture(folder / _FOLDER, f"{name}/{_PICTURE}", record),
            references=[choices[record.index("answer", len(choices))]],
            candidates=choices,
        )


def _folders(parent: Path) -> Iterator[tuple[str, Record]]:
    """Yields the problems that have a folder each, in the order of their numbers."""
    names = [path.name for path in parent.iterdir() if path.name.isdecimal()] if parent.is_dir() else []
    for name in sorted(names, key=int):
        yield name, read_object(parent / name / _DATA_FILE)


BENCHMARK = Benchmark(
    task=_TASK,
    part="choose_txt test",
    num_items=6_316,
    instruction=_INSTRUCTION,
    source="https://iconqa.github.io, https://iconqa2021.s3.us-west-1.amazonaws.com/iconqa_data.zip",
    licence="CC BY-NC-SA 4.0",
    forms=(
        {PROBLEMS_FILE: "all problems", SPLITS_FILE: "their parts", _FOLDER: "a folder per problem with its image.png"},
        {_FOLDER: "a folder per problem with its data.json and image.png"},
    ),
    example='{"question": "What has been drawn?", "choices": ["circle", "square"], "answer": 0, '
    '"ques_type": "choose_txt", "grade": "grade1"}',
    generation=RANKED,
    generation_source=RANKED_SOURCE,
    read=read,
)
