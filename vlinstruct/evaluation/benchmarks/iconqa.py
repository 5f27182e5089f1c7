"""IconQA (Lu et al. 2021), choose-text test part: 6,316 questions about abstract diagrams with two to five options.

problems.json, pid_splits.json    {"12": {"question", "choices", "answer": place}, ...}, {"choose_txt_test": ["12"]}
iconqa/test/choose_txt/12/        data.json (that problem; read where the two files are not there), image.png

On the hub a row has `question_id`, `question`, `choices` as one text with commas, `answer` as the right one's text,
`ques_type` and the picture, `query_image` (lmms-eval, lmms_eval/tasks/iconqa/utils.py). A row whose choices can be
divided at its commas in several ways is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from vlinstruct.errors import shortened
from vlinstruct.evaluation.benchmark import Benchmark, HubCopy, Item, Task
from vlinstruct.evaluation.reading.annotations import PROBLEMS_FILE, SPLITS_FILE, Record, read_object, read_problems
from vlinstruct.evaluation.reading.hub_tables import read_rows
from vlinstruct.evaluation.reading.items import ItemMaker, LeftOut, LoadPicture, choices_of, options, picture
from vlinstruct.evaluation.reading.joined_choices import commas_in_choices, divisions

_FOLDER, _DATA_FILE, _PICTURE = "iconqa/test/choose_txt/", "data.json", "image.png"
_INSTRUCTION = "Question: {question} Options: {options} \n Answer:"
_CHAT_INSTRUCTION = (
    "Given a set of images and a question, please provide the answer to the question.\n"
    "Question: {question}.\nOptions:\n{lettered_options}\n"
    "Please answer with the option letter from the given choices directly."
)
_TASK = Task(name="iconqa", metric="ranked_accuracy")


def read(folder: Path) -> Iterator[Item]:
    """Yields the test part's items."""
    maker = ItemMaker(_TASK)
    has_files = all((folder / name).exists() for name in (PROBLEMS_FILE, SPLITS_FILE))
    for name, record in read_problems(folder, "choose_txt_test") if has_files else _folders(folder / _FOLDER):
        choices = choices_of(record)
        target = record.index("answer", len(choices))
        yield _item(maker, record, name, choices, target, picture(folder / _FOLDER, f"{name}/{_PICTURE}", record))


def read_copy(folder: Path) -> Iterator[Item]:
    """Yields the same items from a copy on the hub."""
    maker = ItemMaker(_TASK)
    answers = [
        row.text("answer").strip()
        for row in read_rows(folder, _COPY.split, columns=("answer", "ques_type"))
        if row.text("ques_type") == "choose_txt"
    ]
    inner = commas_in_choices(answers)
    for row in read_rows(folder, _COPY.split, columns=_COPY.columns, picture="query_image"):
        if row.text("ques_type") != "choose_txt":
            continue
        name, answer, joined = row.key("question_id"), row.text("answer").strip(), row.text("choices")
        possible = divisions(joined, answer, inner)
        if len(possible) == 1:
            choices = choices_of(replace(row, fields={"choices": list(possible[0])}))
            yield _item(maker, row, name, choices, choices.index(answer), row.picture("query_image"))
        elif possible:
            why = f"its choices '{shortened(joined, 60)}' can be divided at the commas in {len(possible)} ways"
            error = row.error(f"{why}, the answer does not tell", advice="Its authors' files tell, which are read, too")
            fields = {"question": row.text("question")}
            yield maker.item(name, row, instruction="{question}", fields=fields, load_picture=LeftOut(error=error))
        else:
            choices_of(replace(row, fields={"choices": joined.split(",")}))
            raise row.error("field 'answer' is none of 'choices' between the commas")


def _item(
    maker: ItemMaker, record: Record, name: str, choices: Sequence[str], target: int, load_picture: LoadPicture
) -> Item:
    return maker.item(
        name,
        record,
        instruction=_INSTRUCTION,
        fields={"question": record.text("question"), "options": options(choices)},
        load_picture=load_picture,
        candidates=choices,
        target=target,
    )


def _folders(parent: Path) -> Iterator[tuple[str, Record]]:
    """Yields the problems that have a folder each, in the order of their numbers."""
    names = [path.name for path in parent.iterdir() if path.name.isdecimal()] if parent.is_dir() else []
    for name in sorted(names, key=int):
        yield name, read_object(parent / name / _DATA_FILE)


_COPY = HubCopy(
    split="test",
    columns=("question_id", "question", "choices", "answer", "ques_type"),
    read=read_copy,
    hub_ids=("lmms-lab-encoder/ICON-QA", "lmms-lab/ICON-QA"),
)
BENCHMARK = Benchmark(
    task=_TASK,
    part="choose_txt test",
    num_items=6_316,
    instruction=_INSTRUCTION,
    chat_instruction=_CHAT_INSTRUCTION,
    source="https://iconqa.github.io, https://iconqa2021.s3.us-west-1.amazonaws.com/iconqa_data.zip",
    licence="CC BY-NC-SA 4.0",
    forms=(
        {PROBLEMS_FILE: "all problems", SPLITS_FILE: "their parts", _FOLDER: "a folder per problem with its image.png"},
        {_FOLDER: "a folder per problem with its data.json and image.png"},
    ),
    example='{"question": "What has been drawn?", "choices": ["circle", "square"], "answer": 0, '
    '"ques_type": "choose_txt", "grade": "grade1"}',
    read=read,
    hub="lmms-lab-encoder/ICON-QA (until July 2026 lmms-lab/ICON-QA), test",
    copy=_COPY,
)
