"""Shared: one optimized instruction for many images, a folder or a task; its cost is paid once.

Algorithm 2 with means in place of one image's scores: the rewriting needs no image, an instruction's IAS is its mean
over all images, and the comparison shows these means beside the image that is most like the mean. Ours; the paper
optimizes for every image.

Legend: N images in all, B images of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean

from vlinstruct.errors import ScoreError, UsageError
from vlinstruct.instruction.compare import compare
from vlinstruct.instruction.optimize import join
from vlinstruct.instruction.protocol import InstructionModel
from vlinstruct.instruction.rank import is_finite, no_finite_ias
from vlinstruct.instruction.rewrite import Rewritings, rewrite
from vlinstruct.instruction.score import score_per_image
from vlinstruct.instruction.templates import Templates
from vlinstruct.settings import OptimizationSettings
from vlinstruct.values import Optimization, Percept, ScoredInstruction, TokenScores

# Enough to find an image that is like the mean; all percepts of a large folder would not fit into memory.
_MOST_KEPT = 64


def optimize_shared(
    model: InstructionModel,
    percepts: Callable[[], Iterable[Percept]],
    instruction: str,
    *,
    templates: Templates,
    config: OptimizationSettings,
    known: Rewritings | None = None,
) -> Optimization:
    """Optimizes one instruction for all images together.

    Args:
        model: rewrites, scores and compares.
        percepts: gives all images, in chunks of any size and always in the same order; called once, and again if the
            optimized instruction is a new one and there are more images than are kept.
        instruction: the filled-in instruction.
        templates: the texts that the model is sent.
        config: how the instruction is chosen, and the most tokens of a generated one.
        known: rewritings of earlier calls with this model; gets this one's.

    Returns:
        The outcome; every IAS is the mean over all images, and so are the scores of its tokens.

    Raises:
        UsageError: there is no image.
        ScoreError: no instruction has a finite score on every image.
    """
    (rewriting,) = rewrite(model, [instruction], templates, config, known)
    kept: list[Percept] = []
    scored = _scored(model, _keeping(percepts(), kept), (instruction, rewriting.text), templates)
    if not scored:
        raise UsageError("an instruction is optimized for at least one image, got none")
    pair = [mean_score(column) for column in zip(*scored, strict=True)]
    if not any(map(is_finite, pair)):
        raise no_finite_ias()
    (comparison,) = compare(model, _nearest(scored, pair, kept), [pair], templates, config)
    optimized = next((one for one in pair if one.text == comparison.text), None)
    if optimized is None:
        again = kept if len(scored) == sum(map(len, kept)) else percepts()
        optimized = mean_score([row[0] for row in _scored(model, again, (comparison.text,), templates)])
    outcome = join(rewriting, pair, comparison, optimized, templates, config)
    if isinstance(outcome, ScoreError):
        raise outcome
    return outcome


def mean_score(rows: Sequence[ScoredInstruction]) -> ScoredInstruction:
    """Returns one instruction's mean scores over images, token by token; NaN where one of them is."""
    nll = tuple(map(fmean, zip(*(row.scores.token_nll for row in rows), strict=True)))
    scores = TokenScores(tokens=rows[0].scores.tokens, token_nll=nll)
    return ScoredInstruction(text=rows[0].text, ias=scores.mean_nll, scores=scores)


def _scored(
    model: InstructionModel, percepts: Iterable[Percept], texts: Sequence[str], templates: Templates
) -> list[list[ScoredInstruction]]:
    """Returns the scored texts of every image, N lists."""
    return [row for percept in percepts for row in score_per_image(model, percept, [texts] * len(percept), templates)]


def _keeping(percepts: Iterable[Percept], kept: list[Percept]) -> Iterator[Percept]:
    for percept in percepts:
        if sum(map(len, kept)) < _MOST_KEPT:
            kept.append(percept)
        yield percept


def _nearest(
    scored: Sequence[Sequence[ScoredInstruction]], means: Sequence[ScoredInstruction], kept: Sequence[Percept]
) -> Percept:
    """Returns the kept image whose scores are nearest to the means; the first one on ties."""
    places = [(percept, row) for percept in kept for row in range(len(percept))]
    distances = [
        math.fsum(abs(one.ias - mean.ias) for one, mean in zip(row, means, strict=True) if is_finite(mean))
        for row in scored[: len(places)]
    ]
    percept, row = places[distances.index(min(distances))]
    return percept.select([row])
