"""How well a model scores and compares instructions, in a part's wordings; `evaluate_people.py` rewrites them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pretrain_mini.report import Share, share
from pretrain_mini.rewriting import scored
from pretrain_mini.rows import Pictured, mismatched_fact
from vlinstruct.backend import Row
from vlinstruct.metrics.roc_auc import roc_auc
from vlinstruct.mini import Split
from vlinstruct.mini.draw import draw
from vlinstruct.mini.questions import Fact, facts
from vlinstruct.mini.scene import Scene
from vlinstruct.mini.wording import canonical, clean
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import good

Words = Literal["canonical", "drawn"]
_GREEDY = GenerationSettings(max_new_tokens=64)
_BATCH = 50


@dataclass(frozen=True, kw_only=True)
class Likelihoods:
    """How instructions' scores tell fitting from mismatched ones.

    Args:
        auc: how often a fitting instruction has a lower IAS than a mismatched one, of all pairs over all pictures.
        paired: the same, of each picture's own two, which are worded alike.
    """

    auc: float
    paired: Share


def _contrast(picture: Pictured, rng: random.Random, split: Split) -> tuple[Fact, Fact]:
    """Samples a fitting and a mismatched fact of one family: only what they name tells them apart.

    The mismatched one names something that is not there, or asks about what only another picture shows.
    """
    while True:
        mismatched = mismatched_fact(picture, rng, split)
        same_family = [fact for fact in picture.fitting if fact.family == mismatched.family]
        if same_family:
            return rng.choice(same_family), mismatched


def _worded_alike(pair: tuple[Fact, Fact], words: Words, rng: random.Random, split: Split) -> tuple[str, ...]:
    """Puts two facts of one family into the same words."""
    if words == "canonical":
        return tuple(canonical(fact.family, fact.slots) for fact in pair)
    wording = rng.getrandbits(32)
    return tuple(clean(fact.family, fact.slots, random.Random(wording), split) for fact in pair)


def likelihoods(
    model: Model,
    scenes: Sequence[Scene],
    split: Split,
    *,
    words: Words,
    exchanged: bool = False,
) -> Likelihoods:
    """Scores a fitting and a mismatched instruction for every scene.

    Args:
        model: scores.
        scenes: are drawn at the default size.
        split: whose wordings and mismatched facts are used.
        words: both instructions in their family's canonical words, or both in one wording sampled for every picture.
        exchanged: shows the model the next scene's picture in place of each scene's own: no more can be told then than
            wordings alone tell.
    """
    rng = random.Random("likelihoods")
    pictures = [Pictured(scene=scene, facts=facts(scene, rng)) for scene in scenes]
    contrasts = [_contrast(picture, rng, split) for picture in pictures]
    fitting, mismatched = zip(*(_worded_alike(pair, words, rng, split) for pair in contrasts), strict=True)
    seen = [good(outcome) for outcome in model.see_each([draw(scene) for scene in scenes])]
    if exchanged:
        seen = [*seen[1:], seen[0]]
    scores = [good(row) for row in model.score_each(seen, list(zip(fitting, mismatched, strict=True)))]
    low, high = ([row[column].ias for row in scores] for column in (0, 1))
    name = f"fitting instruction has the lower IAS, {words} words{', pictures exchanged' if exchanged else ''}"
    return Likelihoods(
        auc=roc_auc([0] * len(low) + [1] * len(high), low + high),
        paired=share(name, (a < b for a, b in zip(low, high, strict=True))),
    )


def comparison_shares(model: Model, scenes: Sequence[Scene], split: Split) -> list[Share]:
    """Returns how often exchanging two scores, and how often exchanging two equal-scored places, changes the output."""
    rng = random.Random("comparisons")
    pairs = []
    for scene in scenes:
        first, second = rng.sample([fact for fact in facts(scene, rng) if fact.is_fitting], 2)
        pairs.append(tuple(clean(fact.family, fact.slots, rng, split) for fact in (first, second)))
    seen = [good(outcome) for outcome in model.see_each([draw(scene) for scene in scenes])]

    def compare(ordered: Sequence[tuple[str, ...]], scores: tuple[float, float]) -> list[str]:
        rows = [
            Row(
                prompt=model.templates.compare_prompt(
                    [scored(text, ias) for text, ias in zip(pair, scores, strict=True)]
                ),
                seen=(picture,),
                reads=initial,
                stage="compare",
            )
            for picture, pair, (initial, _) in zip(seen, ordered, pairs, strict=True)
        ]
        return [good(written).text for written in model.backend.write(rows, _GREEDY)]

    swapped = [(second, first) for first, second in pairs]
    changed = {
        "comparison changes when the scores are exchanged": (compare(pairs, (2.5, 0.7)), compare(pairs, (0.7, 2.5))),
        "comparison changes when equal-scored places are exchanged": (
            compare(pairs, (1.5, 1.5)),
            compare(swapped, (1.5, 1.5)),
        ),
    }
    return [share(name, (a != b for a, b in zip(*outputs, strict=True))) for name, outputs in changed.items()]
