"""How good drafts are: measured on mini's world, where rewriting and comparing write what they mean to write."""

from __future__ import annotations

import random

from vlinstruct.bench.drafts import num_passes
from vlinstruct.mini.draw import draw
from vlinstruct.mini.questions import ask, facts
from vlinstruct.mini.world import sample_scene
from vlinstruct.model import load

_POOR_SHARE = 0.5


def measured_acceptance(items: int) -> float:
    """Returns the share of the tokens of rewritten and optimized instructions that drafts gave, 0 to 1.

    Every text's first pass writes a token in any case, and does not count. Half of the instructions are poorly worded.

    Args:
        items: pictures of the dev part, drawn without installed fonts, with one instruction each.
    """
    pipeline, rng = load("mini", device="cpu"), random.Random("acceptance")
    ids = pipeline.backend.tokenizer.target_ids
    passes = tokens = 0
    for seed in range(items):
        scene = sample_scene(seed, split="dev", fonts=("pillow",))
        fact = rng.choice([fact for fact in facts(scene, rng) if fact.is_fitting])
        result = pipeline.optimize(ask(fact, rng, "dev", _POOR_SHARE).instruction, draw(scene))
        better = min(result.initial, result.rewritten, key=lambda one: one.ias)
        for draft, written in ((result.initial, result.rewritten), (better, result.optimized)):
            passes += num_passes(ids(draft.text), ids(written.text)) - 1
            tokens += len(ids(written.text)) - 1
    return 1 - passes / tokens
