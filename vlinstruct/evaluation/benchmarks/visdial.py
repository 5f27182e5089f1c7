"""Visual Dialog (Das et al. 2017), v1.0 validation: 2,064 dialogues; of each the last question, with 100 answers.

    visdial_1.0_val.json    {"split": "val2018", "data": {"questions": [text, ...], "answers": [text, ...],
                            "dialogs": [{"image_id", "dialog": [{"question", "answer_options", "gt_index"}]}, ...]}}
    VisualDialog_val2018/   the pictures, VisualDialog_val2018_000000000001.jpg

Questions and answers are named by their place in the two lists; `gt_index` is the right one's in `answer_options`.
Where we differ: InstructBLIP shows the dialogue so far; VisLingInstruct's instruction (appendix C.2) has the question
alone. LAVIS' reader turns every round into the last one by mistake; here the last round is all that is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlinstruct.evaluation.benchmark import Benchmark, Item, Task
from vlinstruct.evaluation.reading.annotations import read_object
from vlinstruct.evaluation.reading.items import ItemMaker, picture

_FILE, _PICTURES = "visdial_1.0_val.json", "VisualDialog_val2018/"
_INSTRUCTION = "Question: {question} \n Short answer:"
_SPLIT = "val2018"
_ID_DIGITS = 12
_CHAT_INSTRUCTION = "{question}\nAnswer the question using a single word or phrase."
_TASK = Task(name="visdial", metric="mrr")


def read(folder: Path) -> Iterator[Item]:
    """Yields the last round of every dialogue."""
    maker = ItemMaker(_TASK)
    file = read_object(folder / _FILE)
    if file.text("split") != _SPLIT:
        raise file.error(f"it is of another part than '{_SPLIT}'", code="other_part")
    data = file.record("data")
    questions, answers = data.texts("questions"), data.texts("answers")
    for dialogue in data.records("dialogs", "dialogue"):
        name = dialogue.key("image_id")
        rounds = list(dialogue.records("dialog", "round"))
        if not rounds:
            raise dialogue.error("it has no round")
        last = rounds[-1]
        candidates = [answers[place] for place in last.indices("answer_options", len(answers))]
        yield maker.item(
            name,
            last,
            instruction=_INSTRUCTION,
            fields={"question": questions[last.index("question", len(questions))]},
            load_picture=picture(folder / _PICTURES, f"VisualDialog_{_SPLIT}_{name.zfill(_ID_DIGITS)}.jpg", dialogue),
            candidates=candidates,
            target=last.index("gt_index", len(candidates)),
        )


BENCHMARK = Benchmark(
    task=_TASK,
    part="val, the last round of each dialogue",
    num_items=2_064,
    instruction=_INSTRUCTION,
    chat_instruction=_CHAT_INSTRUCTION,
    source="https://visualdialog.org/data",
    licence="CC BY 4.0",
    forms=({_FILE: "the dialogues", _PICTURES: "the pictures, of VisualDialog_val2018.zip"},),
    example='{"split": "val2018", "data": {"questions": ["is it sunny", "is the dog big"], '
    '"answers": ["yes", "no", "i can\'t tell"], "dialogs": [{"image_id": 185, "caption": "a dog", "dialog": ['
    '{"question": 0, "answer": 0, "answer_options": [2, 0, 1], "gt_index": 1}, '
    '{"question": 1, "answer": 1, "answer_options": [0, 1, 2], "gt_index": 1}]}]}}',
    read=read,
    hub="copies lack the 100 answers to rank (HuggingFaceM4/VisDial, jxu124/visdial): take the authors' files",
    is_chat_ours=True,
)
