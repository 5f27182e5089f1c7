"""The ten task families of mini's world, each for one of the paper's zero-shot benchmarks.

Everything is generated: item `n` of a task depends on the part, the task and `n` alone. The test part's words, fonts,
layouts and wordings were never trained on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from itertools import count, islice

from vlinstruct.evaluation.benchmark import Item, Task
from vlinstruct.mini import Split
from vlinstruct.mini.draw import draw
from vlinstruct.mini.phrasings import TASKS as FAMILIES_OF
from vlinstruct.mini.questions import Fact, facts
from vlinstruct.mini.scene import Scene
from vlinstruct.mini.wording import canonical, paraphrased, poor
from vlinstruct.mini.world import sample_scene

_ANSWERS_PER_QUESTION = 10  # VQA accuracy takes ten people's: here all of them say the same

TASKS: tuple[Task, ...] = (
    Task(name="flickr30k", metric="cider"),
    Task(name="nocaps", metric="cider"),
    Task(name="vsr", metric="accuracy"),
    Task(name="gqa", metric="accuracy"),
    Task(name="iconqa", metric="ranked_accuracy"),
    Task(name="vizwiz", metric="vqa_accuracy"),
    Task(name="textvqa", metric="vqa_accuracy"),
    Task(name="visdial", metric="mrr"),
    Task(name="scienceqa", metric="ranked_accuracy"),
    Task(name="hatefulmemes", metric="roc_auc"),
)


def items(task: Task, num_items: int, *, split: Split = "test", seed: int = 0) -> list[Item]:
    """Returns the first items of a task.

    Args:
        task: one of TASKS.
        num_items: how many.
        split: which part of mini's world.
        seed: another one gives other pictures.
    """
    return list(islice(_items(task, split, seed), num_items))


def _items(task: Task, split: Split, seed: int) -> Iterator[Item]:
    for number in count():
        # Seeded by its own number: the first 20 items are the same whether 20 are taken or 500.
        rng = random.Random(f"{task.name}/{split}/{seed}/{number}")
        scene = sample_scene(rng.randrange(2**32), split=split)
        candidates = [fact for fact in facts(scene, rng) if fact.family in FAMILIES_OF[task.name]]
        if candidates:  # not every scene has what every task asks about
            # First a family, then a fact of it: a scene has many facts of one family and few of another.
            family = rng.choice(sorted({fact.family for fact in candidates}))
            fact = rng.choice([fact for fact in candidates if fact.family == family])
            yield _item(task, number, scene, fact, rng, split)


def _item(task: Task, number: int, scene: Scene, fact: Fact, rng: random.Random, split: Split) -> Item:
    return Item(
        id=f"{task.name}-{number}",
        task=task.name,
        load_picture=partial(draw, scene),
        instructions={
            "canonical": canonical(fact.family, fact.slots),
            "paraphrased": paraphrased(fact.family, fact.slots, rng, split),
            "poor": poor(fact.family, fact.slots, rng, split),
        },
        references=(fact.answer,) * (_ANSWERS_PER_QUESTION if task.metric == "vqa_accuracy" else 1),
        candidates=fact.candidates if task.is_ranked else (),
    )
