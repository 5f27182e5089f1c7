"""Small sets of mini's world in the format of the official files of the four benchmarks whose tasks ship."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from PIL import Image

from vlinstruct.instruction.templates import fill
from vlinstruct.mini.draw import draw
from vlinstruct.mini.questions import facts

from .toy_tasks import drawn_facts, scenes

NUM_ITEMS = 12
NUM_DIALOGUES = 4
NUM_CANDIDATES = 100


def pictures(num_items: int) -> list[Image.Image]:
    """Draws pictures of the test part."""
    return [draw(scene) for scene, _ in islice(scenes(seed=11), num_items)]


def write_vsr(folder: Path) -> None:
    """Writes `test.jsonl` and `images/`."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number, (scene, fact) in enumerate(drawn_facts(lambda fact: fact.family == "position", NUM_ITEMS)):
        name = f"{number:012}.jpg"
        draw(scene).save(folder / "images" / name)
        caption = fill("The {first} is {relation} the {second}.", **fact.slots)
        label = ("false", "true").index(fact.answer)
        lines.append({"image": name, "caption": caption, "label": label, "relation": fact.slots["relation"]})
    _write_lines(folder / "test.jsonl", lines)


def write_hatefulmemes(folder: Path) -> None:
    """Writes `dev_seen.jsonl`, `dev_unseen.jsonl` and `img/`."""
    (folder / "img").mkdir(parents=True)
    lines = []
    for number, picture in enumerate(pictures(NUM_ITEMS)):
        picture.save(folder / "img" / f"{number:05}.png")
        text = random.Random(number).choice(("when the bus is late", "look how many, people"))
        lines.append({"id": number, "img": f"img/{number:05}.png", "label": number % 3 % 2, "text": text})
    _write_lines(folder / "dev_seen.jsonl", lines[::2])
    _write_lines(folder / "dev_unseen.jsonl", lines[1::2])


def write_iconqa(folder: Path) -> None:
    """Writes `problems.json`, `pid_splits.json` and a folder with `image.png` per problem."""
    problems = {}
    drawn = drawn_facts(lambda fact: fact.family == "options", NUM_ITEMS)
    for number, (scene, fact) in enumerate(drawn):
        home = folder / "iconqa/test/choose_txt" / str(number)
        home.mkdir(parents=True)
        draw(scene).save(home / "image.png")
        choices = list(fact.candidates)
        question = f"What is the {fact.slots['asked']}?"
        problems[str(number)] = {"question": question, "choices": choices, "answer": choices.index(fact.answer)}
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "pid_splits.json").write_text(json.dumps({"choose_txt_test": list(problems)}))


def write_visdial(folder: Path) -> None:
    """Writes `visdial_1.0_val.json` and `VisualDialog_val2018/`."""
    (folder / "VisualDialog_val2018").mkdir(parents=True)
    answers = _many_answers()
    dialogues = []
    for number, picture in enumerate(pictures(NUM_DIALOGUES)):
        picture.save(folder / "VisualDialog_val2018" / f"VisualDialog_val2018_{number:012}.jpg")
        options = random.Random(number).sample(range(len(answers)), NUM_CANDIDATES)
        rounds = [{"question": place, "answer_options": options, "gt_index": 10 * place} for place in range(2)]
        dialogues.append({"image_id": number, "caption": "a drawing", "dialog": rounds})
    data = {"questions": ["is there a star", "what is written"], "answers": answers, "dialogs": dialogues}
    (folder / "visdial_1.0_val.json").write_text(json.dumps({"split": "val2018", "data": data}))


def _many_answers() -> list[str]:
    """Returns different answers, some of one word, some of many."""
    found: dict[str, None] = {}
    for scene, rng in scenes(seed=13):
        found |= {fact.answer: None for fact in facts(scene, rng)}
        if len(found) > 2 * NUM_CANDIDATES:
            return list(found)
    raise AssertionError


def _write_lines(path: Path, records: Iterable[object]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


WRITERS: dict[str, Callable[[Path], None]] = {
    "vsr": write_vsr,
    "visdial": write_visdial,
    "hatefulmemes": write_hatefulmemes,
    "iconqa": write_iconqa,
}
