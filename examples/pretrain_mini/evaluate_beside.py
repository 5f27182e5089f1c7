"""Two models on the same canonical questions: `python -m pretrain_mini.evaluate_beside BEFORE AFTER [--split dev]`.

What a new training must not have forgotten: every family, and reading at every height of the letters, is asked about
the same new scenes in canonical words; the difference has a 95 % interval of paired resamples.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

import vlinstruct as vli
from pretrain_mini.evaluate_answers import HEIGHTS, reads, scenes_of_height
from vlinstruct.metrics.bootstrap import Interval, interval, resampled_rows
from vlinstruct.mini import Split
from vlinstruct.mini.draw import draw
from vlinstruct.mini.phrasings import families
from vlinstruct.mini.questions import Fact, facts
from vlinstruct.mini.scene import Scene
from vlinstruct.mini.wording import canonical
from vlinstruct.mini.world import sample_scene
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import good

_GREEDY = GenerationSettings(max_new_tokens=48)
_BATCH = 25
# Of 3,000 scenes fewer allow for these questions: they are drawn until there are so many.
_RARE = ("position", "relation", "same", "number", "meme", "dialogue")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What two models got right of the same items.

    Args:
        name: what was asked.
        before: (N,), 1 where the first was right.
        after: (N,), of the second.
    """

    name: str
    before: Sequence[bool]
    after: Sequence[bool]

    def difference(self) -> Interval:
        """Returns how much more the second gets right, with its interval over paired resamples."""
        change = np.array(self.after, float) - np.array(self.before, float)
        return interval(change[resampled_rows(len(change), seed=0)].mean(axis=1))


def scenes_with_facts(split: Split, seed: int, common: int, rare: int) -> Iterator[tuple[Scene, list[Fact]]]:
    """Yields scenes with one fact of every family that still lacks items.

    Args:
        split: whose fonts and words are used.
        seed: another one has other scenes.
        common: items of a family.
        rare: of one that few scenes allow for.
    """
    wanted = {name: rare if name in _RARE else common for name in families()}
    rng = random.Random(f"beside {split} {seed}")
    while wanted:
        scene = sample_scene(rng.getrandbits(40), split=split)
        by_family = defaultdict(list)
        for fact in facts(scene, rng):
            by_family[fact.family].append(fact)
        asked = [rng.choice(found) for name, found in by_family.items() if name in wanted]
        for fact in asked:
            wanted[fact.family] -= 1
            if not wanted[fact.family]:
                del wanted[fact.family]
        if asked:
            yield scene, asked


def _right(model: Model, batch: Sequence[tuple[Scene, Sequence[Fact]]]) -> list[bool]:
    seen = [good(outcome) for outcome in model.see_each([draw(scene) for scene, _ in batch])]
    rows = [(seen[i], fact) for i, (_, asked) in enumerate(batch) for fact in asked]
    texts = [canonical(fact.family, fact.slots) for _, fact in rows]
    outcomes = model.ask_each([picture for picture, _ in rows], texts, generation=_GREEDY)
    return [good(outcome).text == fact.answer for outcome, (_, fact) in zip(outcomes, rows, strict=True)]


def compare(models: Sequence[Model], split: Split, *, seed: int, common: int, rare: int) -> list[Compared]:
    """Asks both models the same of every family, then lets both read letters of every height."""
    right: dict[str, list[list[bool]]] = defaultdict(lambda: [[], []])
    drawn = scenes_with_facts(split, seed, common, rare)
    while batch := list(islice(drawn, _BATCH)):
        names = [fact.family for _, asked in batch for fact in asked]
        for place, model in enumerate(models):
            for name, is_right in zip(names, _right(model, batch), strict=True):
                right[name][place].append(is_right)
    for height in HEIGHTS:
        scenes = list(islice(scenes_of_height(height, split, first=1_000_000 * (1 + seed)), rare))
        for place, model in enumerate(models):
            for start in range(0, len(scenes), _BATCH):
                right[f"letters 1/{1 / height:.0f} high"][place] += reads(model, scenes[start : start + _BATCH])
    order = [*families(), *(name for name in right if name not in families())]
    return [Compared(name=name, before=right[name][0], after=right[name][1]) for name in order]


def report(compared: Sequence[Compared]) -> str:
    """Returns a Markdown table."""
    lines = ["| canonical words | items | before | after | difference | 95 % interval |", "|---|---|---|---|---|---|"]
    for item in compared:
        change = item.difference()
        before, after = (np.mean(right) for right in (item.before, item.after))
        lines.append(
            f"| {item.name} | {len(item.before)} | {before:.1%} | {after:.1%} | {100 * change.value:+.1f} | "
            f"{100 * change.low:+.1f} to {100 * change.high:+.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m pretrain_mini.evaluate_beside", description="Compare two models.")
    parser.add_argument("before", help="name or folder")
    parser.add_argument("after", help="name or folder")
    parser.add_argument("--split", choices=("dev", "test"), default="test", help="part (default: %(default)s)")
    parser.add_argument("--items", type=int, default=3000, help="of a family (default: %(default)s)")
    parser.add_argument("--rare", type=int, default=1000, help="of a rare one, of a height (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="other scenes (default: %(default)s)")
    arguments = parser.parse_args()
    loaded = [vli.load(arguments.before), vli.load(arguments.after)]
    figures = compare(loaded, arguments.split, seed=arguments.seed, common=arguments.items, rare=arguments.rare)
    print(report(figures))
