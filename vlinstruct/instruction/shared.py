"""Shared: one optimized instruction for many images, a folder or a task; its cost is paid once.

Algorithm 2 with means instead of one image's scores: the rewriting needs no image, an instruction's IAS is its mean
over all images, and the comparison shows these means beside the image that is most like the mean. It reads one image
only, and an unusual one would pull the optimized instruction towards itself. What the answers tell is asked of the
first pictures, as many as are kept. Ours; the paper optimizes for every image.

Legend: N images in all, B images of a chunk.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean

from vlinstruct.backend import Backend, Seen
from vlinstruct.errors import UsageError
from vlinstruct.instruction.choose import JUDGED, RULES, Candidate, text_faults
from vlinstruct.instruction.compare import compare
from vlinstruct.instruction.content import frame
from vlinstruct.instruction.judge import answers_to_judge, judge
from vlinstruct.instruction.optimize import (
    DEFAULT_THRESHOLDS,
    NO_ANSWERING,
    candidates_of,
    framed,
    notices_of,
    with_faults,
)
from vlinstruct.instruction.rewrite import Rewritings, rewrite, sample_rewritings
from vlinstruct.instruction.score import is_finite, no_finite_ias, score
from vlinstruct.instruction.templates import Templates
from vlinstruct.metrics.vqa_accuracy import is_lavis_match
from vlinstruct.settings import OptimizationSettings, Thresholds
from vlinstruct.values import Answer, Failed, Optimization, ScoredInstruction, TokenScores

# Enough to find an image that is like the mean; what was seen of a large folder would not fit into memory.
_MAX_KEPT_IMAGES = 64


def optimize_for_all(
    backend: Backend,
    chunks: Callable[[], Iterable[Sequence[Seen]]],
    instruction: str,
    *,
    templates: Templates,
    settings: OptimizationSettings,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
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
        thresholds: the backbone's own; those of the settings come first.
        rewritings: those of earlier calls with this backend; gets what is new.

    Returns:
        The outcome; every IAS is the mean over all images, and so are the scores of its tokens.

    Raises:
        UsageError: there is no image.
        ScoreError: no instruction has a finite score on every image.
        VlinstructError: the model cannot take one of the texts.
    """
    if settings.rewrite_seeing:
        raise UsageError("one instruction for many pictures cannot be rewritten with the picture before the model")
    thresholds = settings.thresholds(thresholds)
    least = thresholds.least_certainty if settings.select != "paper" else 0.0
    parts = ("", instruction, "") if settings.select == "paper" else frame(instruction)
    question = parts[1]
    (rewriting,) = rewrite(backend, [question], templates, settings, least, rewritings)
    if isinstance(rewriting, Failed):
        raise rewriting.error
    (sampled,) = sample_rewritings(backend, [()], [question], templates, settings)
    more = [text for text in (*settings.variants, *sampled) if text not in (question, rewriting.text)]
    texts = (question, rewriting.text, *dict.fromkeys(more))
    kept: list[Sequence[Seen]] = []
    scored = _scored(backend, _keeping(chunks(), kept), texts, templates)
    if not scored:
        raise UsageError("an instruction is optimized for at least one image, got none")
    means = [mean_score(column) for column in zip(*scored, strict=True)]
    pair = means[:2]
    if not any(map(is_finite, pair)):
        raise no_finite_ias()
    pictures = [picture for chunk in kept for picture in chunk]
    # The image whose scores are nearest to the means, the first one on ties.
    distances = [
        math.fsum(abs(image.ias - mean.ias) for image, mean in zip(row, pair, strict=False) if is_finite(mean))
        for row in scored[: len(pictures)]
    ]
    nearest = pictures[distances.index(min(distances))]
    (comparison,) = compare(backend, [nearest], [pair], templates, settings)
    if isinstance(comparison, Failed):
        raise comparison.error
    optimized = next((candidate for candidate in means if candidate.text == comparison.text), None)
    if optimized is None:
        # The comparison wrote something new: it is scored on every image, looked at again if not all were kept.
        all_chunks = kept if len(scored) == len(pictures) else chunks()
        optimized = mean_score([row[0] for row in _scored(backend, all_chunks, (comparison.text,), templates)])
    outcome = Optimization(
        initial=means[0],
        rewritten=means[1],
        optimized=optimized,
        variants=tuple(means[2:]),
        chosen="initial",
        reason="",
        notices=notices_of(rewriting, pair, comparison, optimized),
    )
    outcome = framed(with_faults(outcome, [rewriting, comparison], templates, settings), parts)
    known = candidates_of(outcome)
    if settings.select in JUDGED:
        known = _judged(backend, kept, outcome, known, thresholds)
    decision = RULES[settings.select](known, thresholds)
    return replace(outcome, chosen=decision.chosen, reason=decision.reason)


def _judged(
    backend: Backend,
    chunks: Sequence[Sequence[Seen]],
    outcome: Optimization,
    candidates: Sequence[Candidate],
    thresholds: Thresholds,
) -> list[Candidate]:
    """Adds what the answers on the pictures tell of the candidates whose text can be trusted.

    A candidate's cross check is its mean over the pictures that are kept; its answer stands for all of them, and is
    that of the user's own words where most pictures are answered alike.
    """
    usable = [candidate.role for candidate in candidates if not text_faults(candidate, thresholds)]
    texts = {role: outcome.by_role()[role].text for role in usable}
    cross: dict[str, list[float]] = {role: [] for role in texts}
    num_alike: Counter[str] = Counter()
    num_pictures = 0
    for chunk in chunks:
        answers = answers_to_judge(backend, chunk, [outcome.initial.text] * len(chunk), NO_ANSWERING)
        good = [(picture, given) for picture, given in zip(chunk, answers, strict=True) if isinstance(given, Answer)]
        num_pictures += len(good)
        own = [given for _, given in good]
        judgements = judge(
            backend, [picture for picture, _ in good], own, [list(texts.values())] * len(good), NO_ANSWERING
        )
        for given, of_picture in zip(own, judgements, strict=True):
            for role, judgement in zip(texts, of_picture, strict=True):
                if isinstance(judgement, Failed):
                    cross[role].append(math.inf)
                    continue
                num_alike[role] += is_lavis_match(judgement.answer.text, given.text)
                if judgement.cross_nll is not None:
                    cross[role].append(judgement.cross_nll)
    return [
        replace(
            candidate,
            cross_nll=fmean(cross[candidate.role]) if cross.get(candidate.role) else None,
            answer="alike" if 2 * num_alike[candidate.role] > num_pictures else "otherwise",
        )
        if candidate.role in texts
        else candidate
        for candidate in candidates
    ]


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
