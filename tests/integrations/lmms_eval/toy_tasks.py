"""Tasks of mini's world for lmms-eval, with answers that are known exactly.

One generates and one ranks, scored by our tasks' code; one ranks and is scored by lmms-eval's own for multiple choice.
Every second question is asked in poor words, for optimization to have something to do.
"""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlinstruct.mini.draw import draw
from vlinstruct.mini.questions import Fact, facts
from vlinstruct.mini.scene import Scene
from vlinstruct.mini.wording import canonical, poor
from vlinstruct.mini.world import sample_scene
from vlinstruct.settings import GenerationSettings

ANSWERS, OPTIONS, MULTIPLE_CHOICE = "toy_answers", "toy_options", "toy_multiple_choice"
GENERATION = GenerationSettings(max_new_tokens=24)
_ASKED_SEED, _RANKED_SEED = 1, 6  # with these mini errs

_YAML = """\
task: {task}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {task}.jsonl
test_split: test
doc_to_visual: !function vlinstruct.integrations.lmms_eval.task_parts.doc_to_visual
doc_to_text: "<image>\\n{{{{instruction}}}}"
doc_to_target: answer
{details}
metric_list:
  - metric: {metric}
    aggregation: mean
    higher_is_better: true
"""
_LIKE = {ANSWERS: "vsr", OPTIONS: "iconqa", MULTIPLE_CHOICE: "iconqa"}
_OUR_CODE = "process_results: !function vlinstruct.integrations.lmms_eval.tasks.{like}.utils.process_results"
_GENERATE = f"output_type: generate_until\ngeneration_kwargs: {{max_new_tokens: {GENERATION.max_new_tokens}}}"
_RANK = "output_type: multiple_choice\ndoc_to_choice: candidates"
_DETAILS = {
    ANSWERS: (f"{_GENERATE}\n{_OUR_CODE.format(like='vsr')}", "accuracy"),
    OPTIONS: (f"{_RANK}\n{_OUR_CODE.format(like='iconqa')}", "accuracy"),
    MULTIPLE_CHOICE: (_RANK, "acc"),
}


def scenes(seed: int) -> Iterator[tuple[Scene, random.Random]]:
    """Yields scenes of the test part, printed with the font that Pillow brings."""
    rng = random.Random(seed)
    while True:
        yield sample_scene(rng.getrandbits(32), split="test", fonts=("pillow",)), rng


def drawn_facts(wanted: Callable[[Fact], bool], num_items: int, *, seed: int = 0) -> list[tuple[Scene, Fact]]:
    """Returns facts of different pictures, one each."""
    drawn: list[tuple[Scene, Fact]] = []
    for scene, rng in scenes(seed):
        found = [fact for fact in facts(scene, rng) if wanted(fact)]
        if found:
            drawn.append((scene, rng.choice(found)))
        if len(drawn) == num_items:
            break
    return drawn


def write(folder: Path, *, num_items: int) -> dict[str, list[dict[str, Any]]]:
    """Writes the tasks, and returns their rows by name."""
    folder.mkdir(parents=True)
    asked = _rows("question", drawn_facts(_is_short, num_items, seed=_ASKED_SEED), folder, is_ranked=False)
    ranked = _rows("choice", [*_choices(num_items // 2), *_spellings(num_items // 2)], folder, is_ranked=True)
    rows = {ANSWERS: asked, OPTIONS: ranked, MULTIPLE_CHOICE: ranked}
    for task, (details, metric) in _DETAILS.items():
        (folder / f"{task}.yaml").write_text(_YAML.format(task=task, details=details, metric=metric))
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[task]))
    return rows


def score(task: str, rows: Sequence[Mapping[str, Any]], results: Sequence[Any]) -> dict[str, float]:
    """Scores results as lmms-eval would with the task's own functions: means, or the task's aggregation."""
    like = _LIKE.get(task, task.removeprefix("vlinstruct_"))
    utils = importlib.import_module(f"vlinstruct.integrations.lmms_eval.tasks.{like}.utils")
    scores = [utils.process_results(row, result) for row, result in zip(rows, results, strict=True)]
    if like == "hatefulmemes":
        return {"roc_auc": utils.area_under_curve([one["roc_auc"] for one in scores])}
    means = {metric: sum(one[metric] for one in scores) / len(scores) for metric in scores[0]}
    return {"acc": means["accuracy"]} if task == MULTIPLE_CHOICE else means


def _is_short(fact: Fact) -> bool:
    return fact.is_fitting and not fact.candidates and len(fact.answer) <= 16


def _choices(num_items: int) -> list[tuple[Scene, Fact]]:
    return drawn_facts(lambda fact: len(fact.candidates) > 1, num_items, seed=_RANKED_SEED)


def _spellings(num_items: int) -> list[tuple[Scene, Fact]]:
    """Returns readings to choose among words that differ by two neighbouring letters: hard for mini."""
    drawn = drawn_facts(lambda fact: fact.family == "reading" and len(fact.answer) > 3, num_items, seed=_RANKED_SEED)
    return [(scene, replace(fact, candidates=_swapped(fact.answer))) for scene, fact in drawn]


def _swapped(word: str) -> tuple[str, ...]:
    """Returns the word with every two neighbours in each other's place, and the word itself."""
    places = range(len(word) - 1)
    return tuple(sorted({word, *(word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in places)}))


def _rows(name: str, drawn: Sequence[tuple[Scene, Fact]], folder: Path, *, is_ranked: bool) -> list[dict[str, Any]]:
    rows = []
    for number, (scene, fact) in enumerate(drawn):
        path = folder / f"{name}-{number}.png"
        draw(scene).save(path)
        words = poor(fact.family, fact.slots, random.Random(number), "test")
        words = words if number % 2 else canonical(fact.family, fact.slots)
        row = {"image": str(path), "instruction": words, "answer": fact.answer}
        rows.append({**row, "candidates": list(fact.candidates) if is_ranked else []})
    return rows
