"""mini's ten tasks: the same items for the same seed, fair to the model, and unlike anything it was trained on."""

from __future__ import annotations

import re

import pytest
from PIL import ImageChops

from vlinstruct.evaluation.benchmark import WORDS, Task
from vlinstruct.evaluation.benchmarks.mini import TASKS, items
from vlinstruct.mini.phrasings import TASKS as FAMILIES_OF
from vlinstruct.mini.phrasings import families


def test_there_is_a_task_for_each_of_the_papers_benchmarks() -> None:
    assert [task.name for task in TASKS] == list(FAMILIES_OF)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_same_seed_gives_the_same_items_and_another_one_others(task: Task) -> None:
    first, again, other = items(task, 5), items(task, 5), items(task, 5, seed=1)
    assert [item.instructions for item in first] == [item.instructions for item in again]
    for one, two, three in zip(first, again, other, strict=True):
        assert ImageChops.difference(one.load_picture(), two.load_picture()).getbbox() is None
        assert ImageChops.difference(one.load_picture(), three.load_picture()).getbbox() is not None


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_fewer_items_are_the_first_ones(task: Task) -> None:
    assert [item.id for item in items(task, 3)] == [item.id for item in items(task, 6)][:3]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_an_item_is_asked_in_three_kinds_of_words_and_can_be_answered(task: Task) -> None:
    for item in items(task, 20):
        assert tuple(item.instructions) == WORDS
        assert len({item.instructions["canonical"], item.instructions["poor"]}) == 2
        assert len(set(item.references)) == 1
        assert bool(item.candidates) is task.is_ranked
        assert not task.is_ranked or item.references[0] in item.candidates


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_paraphrases_of_the_test_part_were_never_trained_on(task: Task) -> None:
    wordings = [wording for name in FAMILIES_OF[task.name] for wording in families()[name].wordings["test"]]
    frames = [re.compile(re.sub(r"\\\{\w+\\\}", ".+", re.escape(wording.text))) for wording in wordings]
    for item in items(task, 20):
        assert any(frame.fullmatch(item.instructions["paraphrased"]) for frame in frames)


def test_hateful_memes_has_both_answers() -> None:
    (task,) = [task for task in TASKS if task.name == "hatefulmemes"]
    assert {item.references[0] for item in items(task, 40)} == {"yes", "no"}
