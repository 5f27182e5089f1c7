"""ScienceQA (Lu et al. 2022), those of the test part that have a picture: 2,017 questions with two to five options.

    problems.json     {"12": {"question", "choices", "answer": place, "image": "image.png" or null, ...}, ...}
    pid_splits.json   {"test": ["12", ...], ...}
    images/test/12/   image.png

On the hub a row has the same fields and the picture, but no number: there an id is the row's place among the pictured.

Where we differ: InstructBLIP shows the `hint` as context; VisLingInstruct's instruction (appendix C.2) has none;
that for chat models has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlinstruct.evaluation.benchmark import Benchmark, HubCopy, Item, Task
from vlinstruct.evaluation.reading.annotations import PROBLEMS_FILE, SPLITS_FILE, Record, read_problems
from vlinstruct.evaluation.reading.hub_tables import read_rows
from vlinstruct.evaluation.reading.items import ItemMaker, LoadPicture, choices_of, options, picture

_PICTURES = "images/test/"
_INSTRUCTION = (
    "Given the image, choose the correct option for the following question. Question: {question} \n Options: {options}"
)
_CONFIG = "ScienceQA-IMG"
_CHAT_INSTRUCTION = (
    "{context}{question}\n{lettered_options}\nAnswer with the option's letter from the given choices directly."
)
_TASK = Task(name="scienceqa", metric="ranked_accuracy")


def read(folder: Path) -> Iterator[Item]:
    """Yields the test part's items that have a picture."""
    maker = ItemMaker(_TASK)
    for name, record in read_problems(folder, "test"):
        if not record.fields.get("image"):
            continue
        yield _item(maker, record, name, picture(folder / _PICTURES, f"{name}/{record.text('image')}", record))


def read_copy(folder: Path) -> Iterator[Item]:
    """Yields the same items from a copy on the hub, under other ids."""
    maker = ItemMaker(_TASK)
    rows = read_rows(
        folder,
        _COPY.split,
        columns=_COPY.columns,
        picture="image",
        optional=["hint"],
        config=_CONFIG,
        with_picture_only=True,
    )
    for number, row in enumerate(rows, start=1):
        yield _item(maker, row, f"row{number}", row.picture("image"))


def _item(maker: ItemMaker, record: Record, name: str, load_picture: LoadPicture) -> Item:
    choices = choices_of(record)
    hint = record.text("hint") if record.fields.get("hint") else ""
    return maker.item(
        name,
        record,
        instruction=_INSTRUCTION,
        fields={
            "question": record.text("question"),
            "options": options(choices),
            "context": f"Context: {hint}\n" if hint else "",
        },
        load_picture=load_picture,
        candidates=choices,
        target=record.index("answer", len(choices)),
    )


_COPY = HubCopy(
    split="test",
    columns=("question", "choices", "answer"),
    read=read_copy,
    hub_ids=("lmms-lab-encoder/ScienceQA", "lmms-lab/ScienceQA", "derek-thomas/ScienceQA"),
)
BENCHMARK = Benchmark(
    task=_TASK,
    part="test, those with an image",
    num_items=2_017,
    instruction=_INSTRUCTION,
    chat_instruction=_CHAT_INSTRUCTION,
    source="https://github.com/lupantech/ScienceQA, data/scienceqa and tools/download.sh",
    licence="CC BY-NC-SA 4.0",
    forms=({PROBLEMS_FILE: "all problems", SPLITS_FILE: "their parts", _PICTURES: "the pictures, of test.zip"},),
    example='{"question": "Which of these lives in water?", "choices": ["an owl", "a trout"], "answer": 1, "hint": "", '
    '"image": "image.png", "split": "test", "grade": "grade2"}',
    read=read,
    hub=f"lmms-lab-encoder/ScienceQA (until July 2026 lmms-lab/ScienceQA), {_CONFIG}, test, or derek-thomas/ScienceQA, "
    "test; both without the problems' numbers",
    copy=_COPY,
)
