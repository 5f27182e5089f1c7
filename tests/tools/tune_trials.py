"""What `vlinstruct tune` promises, tried out: `coverage` by simulation, `trials` on mini's world.

PYTHONPATH=tests python -m tools.tune_trials coverage
PYTHONPATH=tests python -m tools.tune_trials trials mini count reading shape

`coverage` makes 1,000 tasks whose truth is known, runs the search on a few dozen items of each, and counts how many of
the 95 % intervals that are told hold the truth: first over tasks of all kinds, then kind by kind.

`trials` draws 60 labelled items for each of 20 seeds, tunes from the canonical instruction and from the worst of the
poor wordings (found on other items), and judges what was chosen on 1,000 items that no run saw. Pictures are of the dev
part.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

import vlinstruct as vli
from vlinstruct.instruction.propose import filled
from vlinstruct.instruction.race import Candidate, parts_of, plan_race, race
from vlinstruct.metrics.accuracy import is_exact_match
from vlinstruct.mini.draw import draw
from vlinstruct.mini.phrasings import families
from vlinstruct.mini.questions import facts
from vlinstruct.mini.wording import poor
from vlinstruct.mini.world import sample_scene
from vlinstruct.model import Model

NUM_TASKS = 1_000
NUM_LABELLED, NUM_JUDGED, NUM_WORST, NUM_POOR, NUM_SEEDS = 60, 1_000, 200, 120, 20
SLOTS = {"colour": "thing", "count": "things", "reading": "", "shape": "colour"}
"""By family the slot that is an item's question; without one the items have none."""
_SHARED = 0.8  # of two answers to one item, how much the item decides and not the instruction


def _exact(latent: np.ndarray) -> np.ndarray:
    return (latent > 0).astype(float)


def _vqa(latent: np.ndarray) -> np.ndarray:
    return np.select([latent > 0.6, latent > 0.3, latent > 0, latent > -0.3], [1.0, 0.9, 0.6, 0.3], 0.0)


def _cider(latent: np.ndarray) -> np.ndarray:
    return np.where(latent > -1, np.minimum(np.exp(0.8 * latent - 0.4), 10.0), 0.0)


METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"exact": _exact, "vqa": _vqa, "cider": _cider}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What the items of a simulated task are like.

    Args:
        metric: what scores are like.
        num_items: how many are labelled.
        ease: how easy the user's own words make them: a range, in standard deviations of the items' difficulty.
    """

    metric: str
    num_items: int
    ease: tuple[float, float]


KINDS = [
    Kind(metric=metric, num_items=num_items, ease=ease)
    for metric in METRICS
    for num_items in (24, 40, 60, 120)
    for ease in ((-2.5, 2.5), (1.3, 2.3))
]


def coverage(kinds: Sequence[Kind]) -> dict[str, float]:
    """Returns the share of intervals that hold the truth, over tasks of some kinds, in turn."""
    normal = np.random.default_rng(0).standard_normal(20_000)
    held: dict[str, list[bool]] = {"winner": [], "winner if changed": [], "gain": []}
    for seed in range(NUM_TASKS):
        kind = kinds[seed % len(kinds)]
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        score, num_items = METRICS[kind.metric], kind.num_items
        num_others = int(rng.integers(1, 12))
        easy = rng.uniform(*kind.ease) + np.concatenate([[0.0], rng.normal(0, 0.5, num_others)])
        shared, own = rng.standard_normal(num_items), rng.standard_normal((1 + num_others, num_items))
        scores = score(easy[:, None] + math.sqrt(_SHARED) * shared + math.sqrt(1 - _SHARED) * own)
        parts = parts_of(num_items, seed=seed)
        tuned = race(
            [Candidate(text=str(number), source="made") for number in range(1 + num_others)],
            parts,
            lambda number, places, scores=scores: scores[number, list(places)].tolist(),
            plan=plan_race(num_others, parts),
            favourite=1,
            largest=None if kind.metric == "cider" else 1.0,
            seed=seed,
        )
        truth = {number: float(score(easy[number] + normal).mean()) for number in tuned.held_out}
        told = tuned.held_out[tuned.chosen].score
        held["winner"].append(told.low <= truth[tuned.chosen] <= told.high)
        if tuned.chosen:
            held["winner if changed"].append(held["winner"][-1])
        for look in tuned.looks:
            held["gain"].append(look.gain.low <= truth[look.number] - truth[0] <= look.gain.high)
    return {name: fmean(row) if row else math.nan for name, row in held.items()}


def _items(family: str, name: str, count: int) -> list[tuple[object, str | None, str]]:
    """Returns scenes with a question and its answer."""
    items: list[tuple[object, str | None, str]] = []
    number = 0
    while len(items) < count:
        rng = random.Random(f"tune_trials/{family}/{name}/{number}")
        number += 1
        scene = sample_scene(rng.randrange(2**32), split="dev", fonts=("pillow",))
        fitting = [fact for fact in facts(scene, rng) if fact.family == family and fact.is_fitting]
        if fitting:
            fact = rng.choice(fitting)
            items.append((scene, fact.slots[SLOTS[family]] if SLOTS[family] else None, fact.answer))
    return items


class Judge:
    """Scores instructions on items of its own, each once.

    Args:
        model: answers.
        items: scenes with a question and its answer.
    """

    def __init__(self, model: Model, items: Sequence[tuple[object, str | None, str]]) -> None:
        self.model, self.items = model, items
        self.chunks = [items[start : start + 32] for start in range(0, len(items), 32)]
        self.seen = [model.see_each([draw(scene) for scene, *_ in chunk]) for chunk in self.chunks]
        self.shares: dict[str, float] = {}

    def share(self, instruction: str) -> float:
        """Returns the share of right answers, in percent."""
        if instruction not in self.shares:
            right = []
            for chunk, seen in zip(self.chunks, self.seen, strict=True):
                texts = [filled(instruction, question) for _, question, _ in chunk]
                answers = self.model.ask_each(seen, texts)
                right += [is_exact_match(reply.text, item[2]) for reply, item in zip(answers, chunk, strict=True)]
            self.shares[instruction] = 100 * fmean(right)
        return self.shares[instruction]


def _write(items: Sequence[tuple[object, str | None, str]], folder: Path) -> Path:
    """Writes labelled items as people have them."""
    lines = []
    for number, (scene, question, answer) in enumerate(items):
        draw(scene).save(folder / f"{number}.png")
        asked = {} if question is None else {"question": question}
        lines.append(json.dumps({"image": f"{number}.png", **asked, "answer": answer}))
    path = folder / "labelled.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def trials(backbone: str, family: str, seeds: Sequence[int]) -> list[dict[str, object]]:
    """Tunes from the canonical and from the worst poor wording, for every seed."""
    model = vli.load(backbone, device="cpu")
    slot = SLOTS[family]
    slots = {slot: "{question}"} if slot else {}
    canonical = families()[family].canonical.replace(f"{{{slot}}}", "{question}")
    rng = random.Random(0)
    wordings = {poor(family, slots, rng, split) for _ in range(NUM_POOR) for split in ("dev", "test")}
    elsewhere = Judge(model, _items(family, "worst", NUM_WORST))
    worst = min(sorted(wordings), key=elsewhere.share)
    judge = Judge(model, _items(family, "judge", NUM_JUDGED))
    records: list[dict[str, object]] = []
    settings = vli.RunSettings(model=vli.ModelSettings(backbone=backbone, device="cpu"), batch_size=16)
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            data = _write(_items(family, f"seed-{seed}", NUM_LABELLED), Path(folder))
            for start, words in (("canonical", canonical), ("worst", worst)):
                record = vli.tune(words, data, tuning=vli.TuneSettings(seed=seed), settings=settings)
                records.append(
                    {
                        "family": family,
                        "seed": seed,
                        "start": start,
                        "words": words,
                        "chosen": record["instruction"],
                        "calls": record["calls"],
                        "own": judge.share(words),
                        "tuned": judge.share(record["instruction"]),
                        "canonical": judge.share(canonical),
                        "held_out": next(
                            row["held_out"]
                            for row in record["candidates"]
                            if row["instruction"] == record["instruction"]
                        ),
                    }
                )
    return records


def _print_trials(backbone: str, names: Sequence[str], seeds: Sequence[int], output: Path | None) -> None:
    records = []
    for family in names:
        records += trials(backbone, family, seeds)
        for start in ("canonical", "worst"):
            rows = [row for row in records if row["family"] == family and row["start"] == start]
            gains = [row["tuned"] - row["own"] for row in rows]
            near = sum(row["tuned"] >= row["canonical"] - 1 for row in rows)
            holds = sum(row["held_out"]["low"] <= row["tuned"] / 100 <= row["held_out"]["high"] for row in rows)
            print(
                f"{backbone} {family:8} from {start:9} own {rows[0]['own']:5.1f} canonical {rows[0]['canonical']:5.1f} "
                f"gain mean {fmean(gains):+6.2f} worst {min(gains):+5.2f}, {sum(g < -1 for g in gains)} below -1, "
                f"{near} of {len(rows)} within 1 of the canonical, interval holds {holds}, "
                f"calls {fmean(row['calls'] for row in rows):.0f}: {rows[0]['words']}",
                flush=True,
            )
    if output is not None:
        output.write_text("".join(json.dumps(row) + "\n" for row in records), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("coverage", "trials"))
    parser.add_argument("backbone", nargs="?", default="mini")
    parser.add_argument("families", nargs="*", default=["count", "reading", "shape"])
    parser.add_argument("--first-seed", type=int, default=0, help="work on a method with others than 0 to 19")
    parser.add_argument("--output", type=Path, help="trials: write a record per run here")
    arguments = parser.parse_args()
    if arguments.what == "trials":
        seeds = range(arguments.first_seed, arguments.first_seed + NUM_SEEDS)
        _print_trials(arguments.backbone, arguments.families, seeds, arguments.output)
        return
    for name, kinds in [("all kinds", KINDS), *((str(kind), [kind]) for kind in KINDS)]:
        shares = coverage(kinds)
        print(f"{name}: {', '.join(f'{what} {100 * share:.1f}' for what, share in shares.items())}", flush=True)


if __name__ == "__main__":
    main()
