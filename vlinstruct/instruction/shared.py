"""Shared: one optimized instruction for many images, a folder or a task; its cost is paid once.

Algorithm 2 with means instead of one image's scores: the rewriting needs no image, an instruction's IAS is its mean
over all images, and the comparison shows these means beside the image that is most like the mean. It reads one image
only, and an unusual one would pull the optimized instruction towards itself. Ours; the paper optimizes for every image.

Legend: N images in all, B images of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean

from vlinstruct.backend import Backend, Seen
from vlinstruct.errors import UsageError
from vlinstruct.instruction.compare import compare
from vlinstruct.instruction.optimize import join
from vlinstruct.instruction.rewrite import Rewritings, rewrite
from vlinstruct.instruction.score import is_finite, no_finite_ias, score
from vlinstruct.instruction.templates import Templates
from vlinstruct.settings import OptimizationSettings
from vlinstruct.values import Failed, Optimization, ScoredInstruction, TokenScores

# Enough to find an image that is like the mean; what was seen of a large folder would not fit into memory.
_MAX_KEPT_IMAGES = 64


def optimize_for_all(
    backend: Backend,
    chunks: Callable[[], Iterable[Sequence[Seen]]],
    instruction: str,
    *,
    templates: Templates,
    settings: OptimizationSettings,
    rewritings: Rewritings | None = None,
) -> Optimization:
    """Optimizes one instruction for all images together.

    Args:
        backend: rewrites, scores and compares.
        chunks: gives all images, in chunks of any size and always in the same order; called once, and again if the
            optimized instruction is a new one and there are more images than are kept.
        instruction: the filled-in instruction.
        templates: the texts that the model is sent.
        settings: how the instruction is chosen, and the most tokens of a generated one.
        rewritings: those of earlier calls with this backend; gets what is new.

    Returns:
        The outcome; every IAS is the mean over all images, and so are the scores of its tokens.

    Raises:
        UsageError: there is no image.
        ScoreError: no instruction has a finite score on every image.
        VlinstructError: the model cannot take one of the texts.
    """
    (rewriting,) = rewrite(backend, [instruction], templates, settings, rewritings)
    if isinstance(rewriting, Failed):
        raise rewriting.error
    kept: list[Sequence[Seen]] = []
    scored = _scored(backend, _keeping(chunks(), kept), (instruction, rewriting.text), templates)
    if not scored:
        raise UsageError("an instruction is optimized for at least one image, got none")
    pair = [mean_score(column) for column in zip(*scored, strict=True)]
    if not any(map(is_finite, pair)):
        raise no_finite_ias()
    pictures = [picture for chunk in kept for picture in chunk]
    # The image whose scores are nearest to the means, the first one on ties.
    distances = [
        math.fsum(abs(image.ias - mean.ias) for image, mean in zip(row, pair, strict=True) if is_finite(mean))
        for row in scored[: len(pictures)]
    ]
    nearest = pictures[distances.index(min(distances))]
    (comparison,) = compare(backend, [nearest], [pair], templates, settings)
    if isinstance(comparison, Failed):
        raise comparison.error
    optimized = next((candidate for candidate in pair if candidate.text == comparison.text), None)
    if optimized is None:
        # The comparison wrote something new: it is scored on every image, looked at again if not all were kept.
        all_chunks = kept if len(scored) == len(pictures) else chunks()
        optimized = mean_score([row[0] for row in _scored(backend, all_chunks, (comparison.text,), templates)])
    outcome = join(rewriting, pair, comparison, optimized, templates, settings)
    if isinstance(outcome, Failed):
        raise outcome.error
    return outcome


def mean_score(rows: Sequence[ScoredInstruction]) -> ScoredInstruction:
    """Returns one instruction's mean scores over images, token by token; NaN where one of them is."""
    nll = tuple(map(fmean, zip(*(row.scores.token_nll for row in rows), strict=True)))
    scores = TokenScores(tokens=rows[0].scores.tokens, token_nll=nll)
    return ScoredInstruction(text=rows[0].text, ias=scores.mean_nll, scores=scores)


def _scored(
    backend: Backend, chunks: Iterable[Sequence[Seen]], texts: Sequence[str], templates: Templates
) -> list[list[ScoredInstruction]]:
    """Returns the scored texts of every image, N lists; a text that cannot be scored fails for all images."""
    scored = []
    for chunk in chunks:
        for row in score(backend, chunk, [texts] * len(chunk), templates):
            if isinstance(row, Failed):
                raise row.error
            scored.append(row)
    return scored


def _keeping(chunks: Iterable[Sequence[Seen]], kept: list[Sequence[Seen]]) -> Iterator[Sequence[Seen]]:
    """Passes chunks on and keeps the first ones."""
    for chunk in chunks:
        if sum(map(len, kept)) < _MAX_KEPT_IMAGES:
            kept.append(chunk)
        yield chunk
