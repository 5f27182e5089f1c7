"""What mini makes of a clip: the same questions with one frame and with all four.

PYTHONPATH=tests python -m tools.clips_of_mini

Draws clips of four frames from the test part of mini's world, in each of which one thing, or the text, moves a little:
by 3 % of the picture's side from frame to frame, clear of everything else. Asked is what has one answer in all frames,
one question of every family that a clip allows, in canonical words. mini was trained on single pictures: four of them
side by side are something that it never met.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

import vlinstruct as vli
from vlinstruct.metrics.bootstrap import interval, resampled_rows, wilson
from vlinstruct.mini.draw import draw
from vlinstruct.mini.questions import Fact, facts
from vlinstruct.mini.scene import Print, Scene, Thing
from vlinstruct.mini.wording import canonical
from vlinstruct.mini.world import sample_scene
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Clip, good

NUM_CLIPS, NUM_FRAMES = 300, 4
STEP = 0.03  # of the picture's side, from frame to frame
CAPTIONS = ("caption", "description")  # right only if every word is: told apart
_EDGE = 0.12
_GENERATION = GenerationSettings(max_new_tokens=48)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A clip and what is asked about it."""

    clip: Clip
    facts: tuple[Fact, ...]


def moving(scene: Scene, rng: random.Random) -> list[Scene] | None:
    """Returns a scene's frames, in which its first thing, or else its text, moves; None where it has no room."""
    item: Thing | Print = (*scene.things, *scene.prints)[0]
    angle = rng.uniform(0, 2 * math.pi)
    steps = [(item.x + k * STEP * math.cos(angle), item.y + k * STEP * math.sin(angle)) for k in range(NUM_FRAMES)]
    if not all(_EDGE < value < 1 - _EDGE for step in steps for value in step):
        return None
    if isinstance(item, Print):
        return [replace(scene, prints=(replace(item, x=x, y=y),)) for x, y in steps]
    for x, y in steps:
        if any(math.dist((x, y), (other.x, other.y)) < (item.size + other.size) / 2 for other in scene.things[1:]):
            return None
        if any(abs(y - text.y) < (item.size + text.height) / 2 for text in scene.prints):
            return None
    return [replace(scene, things=(replace(item, x=x, y=y), *scene.things[1:])) for x, y in steps]


def draw_clip(seed: int) -> Drawn | None:
    """Draws a clip, and one question of every family whose answer is the same in all of its frames."""
    rng = random.Random(f"clip {seed}")
    scenes = moving(sample_scene(seed, split="test"), rng)
    if scenes is None:
        return None
    # From one seed: a relation is then asked of the same two things in every frame.
    of_frames = [facts(scene, random.Random(f"asked {seed}")) for scene in scenes]
    answers = [{(fact.family, *sorted(fact.slots.items())): fact.answer for fact in of_frame} for of_frame in of_frames]
    by_family = defaultdict(list)
    for fact in of_frames[0]:
        key = (fact.family, *sorted(fact.slots.items()))
        if all(of_frame.get(key) == fact.answer for of_frame in answers):
            by_family[fact.family].append(fact)
    clip = Clip(
        frames=tuple(map(draw, scenes)),
        frame_indices=tuple(range(NUM_FRAMES)),
        num_source_frames=NUM_FRAMES,
        fps=4.0,
        duration_s=1.0,
    )
    return Drawn(clip=clip, facts=tuple(rng.choice(of_family) for of_family in by_family.values()))


def right(model: Model, clips: Sequence[Drawn], num_frames: int) -> list[list[bool]]:
    """Returns by clip which of its questions are answered right, letter for letter, by its first frames."""
    results = []
    for drawn in clips:
        clip = replace(drawn.clip, frames=drawn.clip.frames[:num_frames], frame_indices=tuple(range(num_frames)))
        seen = model.see(clip)
        texts = [canonical(fact.family, fact.slots) for fact in drawn.facts]
        answers = model.ask_each([seen] * len(texts), texts, generation=_GENERATION)
        results.append([good(answer).text == fact.answer for answer, fact in zip(answers, drawn.facts, strict=True)])
    return results


def report(name: str, clips: Sequence[Drawn]) -> None:
    """Prints a table of one model: by family, captions, and all others with the difference's interval."""
    model = vli.load(name)
    one, four = right(model, clips, 1), right(model, clips, NUM_FRAMES)
    families = list(dict.fromkeys(fact.family for drawn in clips for fact in drawn.facts))
    print(f"\n{name}\n| what | items | one frame | four frames |\n|---|---|---|---|")
    for family in [*families, "all but captions"]:
        pairs = [
            (first, second)
            for drawn, firsts, seconds in zip(clips, one, four, strict=True)
            for fact, first, second in zip(drawn.facts, firsts, seconds, strict=True)
            if family == fact.family or (family == "all but captions" and fact.family not in CAPTIONS)
        ]
        shares = [wilson(sum(column) / len(pairs), len(pairs)) for column in zip(*pairs, strict=True)]
        cells = [f"{100 * s.value:.1f} % ({100 * s.low:.1f} to {100 * s.high:.1f})" for s in shares]
        print(f"| {family} | {len(pairs)} | {cells[0]} | {cells[1]} |")
    # Questions of one clip fall and rise together: clips are what is resampled.
    lost = np.array(
        [
            [
                sum(
                    int(first) - int(second)
                    for fact, first, second in zip(drawn.facts, firsts, seconds, strict=True)
                    if fact.family not in CAPTIONS
                ),
                sum(fact.family not in CAPTIONS for fact in drawn.facts),
            ]
            for drawn, firsts, seconds in zip(clips, one, four, strict=True)
        ]
    )
    sums = lost[resampled_rows(len(clips), seed=0)].sum(axis=1)
    loss = interval(100 * sums[:, 0] / sums[:, 1])
    print(f"four frames lose {loss.value:.1f} points [{loss.low:.1f}, {loss.high:.1f}] against one")


def main() -> None:
    """Draws the clips once and asks both minis."""
    parser = argparse.ArgumentParser(description="Ask mini about clips of its world.")
    parser.add_argument("models", nargs="*", default=["mini", "mini-llama"])
    parser.add_argument("--clips", type=int, default=NUM_CLIPS)
    options = parser.parse_args()
    drawn: list[Drawn] = []
    seed = 0
    while len(drawn) < options.clips:
        clip = draw_clip(seed)
        drawn += [] if clip is None else [clip]
        seed += 1
    print(f"{len(drawn)} clips of {NUM_FRAMES} frames, of {seed} scenes")
    for name in options.models:
        report(name, drawn)


if __name__ == "__main__":
    main()
