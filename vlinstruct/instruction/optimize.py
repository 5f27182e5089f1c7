"""Optimize: algorithm 2 of the paper from the user's instruction to the one that is used (section 3.2).

    instruction -> rewrite -> score -> rank -> compare -> score -> choose -> optimized instruction

Legend: B rows of the batch. In: B images with one instruction each. Out: B outcomes. Three model calls come before the
answer, as in the paper: rewriting (text alone), the IAS of two instructions in one batch, and the comparison. Scoring
the optimized instruction is ours: `safe` needs it, and a user may want to see it.
"""

from __future__ import annotations

from collections.abc import Sequence

from vlinstruct.errors import ScoreError
from vlinstruct.instruction.choose import ROLES, choose
from vlinstruct.instruction.compare import compare
from vlinstruct.instruction.draft import Draft
from vlinstruct.instruction.protocol import InstructionModel
from vlinstruct.instruction.rank import is_finite, no_finite_ias
from vlinstruct.instruction.rewrite import Rewritings, rewrite
from vlinstruct.instruction.score import check_rows, score, score_per_image
from vlinstruct.instruction.templates import Templates
from vlinstruct.settings import OptimizationSettings
from vlinstruct.values import Optimization, Percept, ScoredInstruction


def optimize(
    model: InstructionModel,
    percept: Percept,
    instructions: Sequence[str],
    *,
    templates: Templates,
    config: OptimizationSettings,
    known: Rewritings | None = None,
) -> list[Optimization | ScoreError]:
    """Optimizes one instruction per image (algorithm 2).

    Args:
        model: rewrites, scores and compares.
        percept: the images, B.
        instructions: the filled-in instructions, question and options included, B; none blank.
        templates: the texts that the model is sent.
        config: how the instruction is chosen, and the most tokens of a generated one.
        known: rewritings of earlier calls with this model; gets this one's.

    Returns:
        One outcome per row, B. A row without a finite score gets a ScoreError in its place, returned and not raised: it
        does not bring the others down, and its initial instruction stays as it is.

    Raises:
        UsageError: the numbers of images and instructions differ.
    """
    check_rows(percept, instructions)
    rewritings = rewrite(model, instructions, templates, config, known)
    texts = [(text, rewriting.text) for text, rewriting in zip(instructions, rewritings, strict=True)]
    pairs = score_per_image(model, percept, texts, templates)
    rows = [row for row, pair in enumerate(pairs) if any(map(is_finite, pair))]
    scored = [pairs[row] for row in rows]
    comparisons = compare(model, percept.select(rows), scored, templates, config)
    optimized = _score_optimized(model, percept.select(rows), scored, comparisons, templates)
    outcomes: dict[int, Optimization | ScoreError] = {
        row: join(rewritings[row], pairs[row], comparison, last, templates, config)
        for row, comparison, last in zip(rows, comparisons, optimized, strict=True)
    }
    return [outcomes.get(row) or no_finite_ias() for row in range(len(instructions))]


def _score_optimized(
    model: InstructionModel,
    percept: Percept,
    pairs: Sequence[Sequence[ScoredInstruction]],
    comparisons: Sequence[Draft],
    templates: Templates,
) -> list[ScoredInstruction]:
    """Scores the optimized instructions in one batch; one that equals its initial or rewritten one keeps that score."""
    known = [{one.text: one for one in pair} for pair in pairs]
    new = [row for row, draft in enumerate(comparisons) if draft.text not in known[row]]
    scores = score(model, percept.select(new), [comparisons[row].text for row in new], templates)
    for row, scored in zip(new, scores, strict=True):
        known[row][scored.text] = scored
    return [known[row][draft.text] for row, draft in enumerate(comparisons)]


def join(
    rewriting: Draft,
    pair: Sequence[ScoredInstruction],
    comparison: Draft,
    optimized: ScoredInstruction,
    templates: Templates,
    config: OptimizationSettings,
) -> Optimization | ScoreError:
    """Joins what happened to one row: the outcome, or a ScoreError where nothing can be chosen."""
    initial, rewritten = pair
    try:
        decision = choose(
            initial,
            rewritten,
            optimized,
            templates=templates,
            select=config.select,
            uncertain=_uncertainty(rewriting, config),
        )
    except ScoreError as error:
        return error
    return Optimization(
        initial=initial,
        rewritten=rewritten,
        optimized=optimized,
        chosen=decision.chosen,
        reason=decision.reason,
        notices=_notices(rewriting, pair, comparison, optimized),
    )


def _uncertainty(rewriting: Draft, config: OptimizationSettings) -> str | None:
    """Says in words that a rewriting was written with too little certainty.

    >>> _uncertainty(Draft(text="x", certainty=0.555), OptimizationSettings(least_certainty=0.8))
    'was written with a certainty of 0.56, below 0.8'
    """
    least = config.least_certainty or 0.0
    if rewriting.certainty is None or rewriting.certainty >= least:
        return None
    return f"was written with a certainty of {rewriting.certainty:.2f}, below {least:g}"


def _notices(
    rewriting: Draft, pair: Sequence[ScoredInstruction], comparison: Draft, optimized: ScoredInstruction
) -> tuple[str, ...]:
    """Returns what a user should know of one row, in the order in which it happened."""
    left_out = [
        f"the {role} instruction has no finite IAS and was left out of the comparison"
        for role, one in zip(ROLES, pair, strict=False)
        if not is_finite(one)
    ]
    unscored = [] if is_finite(optimized) else ["the optimized instruction has no finite IAS"]
    return tuple(notice for notice in (rewriting.notice, *left_out, comparison.notice, *unscored) if notice)
