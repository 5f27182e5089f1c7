"""Optimize: algorithm 2 of the paper from the user's instruction to the one that is used (section 3.2).

    instruction -> rewrite -> score -> rank -> compare -> score -> choose -> optimized instruction

Legend: B rows of the batch. In: B images with one instruction each. Out: B outcomes. Three model calls come before the
answer, as in the paper: rewriting (text alone), the IAS of two instructions in one batch, and the comparison. Scoring
the optimized instruction is ours: `safe` needs it, and a user may want to see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from vlinstruct.backend import Backend, Seen, check_rows
from vlinstruct.errors import ScoreError
from vlinstruct.instruction.choose import Candidates, choose
from vlinstruct.instruction.compare import compare
from vlinstruct.instruction.rewrite import Draft, Rewritings, rewrite
from vlinstruct.instruction.score import is_finite, no_finite_ias, score
from vlinstruct.instruction.templates import Templates
from vlinstruct.settings import OptimizationSettings
from vlinstruct.values import ROLES, Failed, Optimization, ScoredInstruction

T = TypeVar("T")


def optimize(
    backend: Backend,
    seen: Sequence[Seen],
    instructions: Sequence[str],
    *,
    templates: Templates,
    settings: OptimizationSettings,
    rewritings: Rewritings | None = None,
) -> list[Optimization | Failed]:
    """Optimizes one instruction per image (algorithm 2).

    Args:
        backend: rewrites, scores and compares.
        seen: the images, B.
        instructions: the filled-in instructions, question and options included, B; none blank.
        templates: the texts that the model is sent.
        settings: how the instruction is chosen, and the most tokens of a generated one.
        rewritings: those of earlier calls with this backend; gets what is new.

    Returns:
        One outcome per row, B. A row that fails, with a ScoreError where no score is finite, does not bring the others
        down.

    Raises:
        UsageError: the numbers of images and instructions differ.
    """
    check_rows(instructions, seen)
    # Every step takes the rows that are still good: one that fails costs its own row and no model call later on.
    failed: dict[int, Failed] = {}
    drafts = _good(range(len(instructions)), rewrite(backend, instructions, templates, settings, rewritings), failed)
    texts = [(instructions[row], draft.text) for row, draft in drafts.items()]
    pairs = _good(drafts, score(backend, [seen[row] for row in drafts], texts, templates), failed)
    for row in [row for row, pair in pairs.items() if not any(map(is_finite, pair))]:
        failed[row] = Failed(error=no_finite_ias())
        del pairs[row]
    compared = compare(backend, [seen[row] for row in pairs], list(pairs.values()), templates, settings)
    comparisons = _good(pairs, compared, failed)
    # The comparison mostly copies one of the pair, whose score is there already: those rows score nothing.
    new = [
        [] if draft.text in [scored.text for scored in pairs[row]] else [draft.text]
        for row, draft in comparisons.items()
    ]
    scores = score(backend, [seen[row] for row in comparisons], new, templates, stage="judge")
    outcomes: dict[int, Optimization | Failed] = dict(failed)
    for row, scored in _good(comparisons, scores, failed).items():
        pair, comparison = pairs[row], comparisons[row]
        optimized = next(candidate for candidate in (*pair, *scored) if candidate.text == comparison.text)
        outcomes[row] = join(drafts[row], pair, comparison, optimized, templates, settings)
    return [outcomes.get(row) or failed[row] for row in range(len(instructions))]


def _good(rows: Iterable[int], results: Sequence[T | Failed], failed: dict[int, Failed]) -> dict[int, T]:
    """Returns the good results by their row; the others go into `failed`."""
    good: dict[int, T] = {}
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, Failed):
            failed[row] = result
        else:
            good[row] = result
    return good


def join(
    rewriting: Draft,
    pair: Sequence[ScoredInstruction],
    comparison: Draft,
    optimized: ScoredInstruction,
    templates: Templates,
    settings: OptimizationSettings,
) -> Optimization | Failed:
    """Joins what happened to one row: the outcome, or its failure where nothing can be chosen."""
    initial, rewritten = pair
    candidates = Candidates(
        initial=initial,
        rewritten=rewritten,
        optimized=optimized,
        templates=templates,
        uncertain=_uncertainty(rewriting, settings),
    )
    try:
        decision = choose(candidates, settings.select)
    except ScoreError as error:
        return Failed(error=error)
    # What a user should know, in the order in which it happened; the optimized instruction comes after the comparison.
    left_out = [
        f"the {role} instruction has no finite IAS and was left out of the comparison"
        for role, scored in zip(ROLES, pair, strict=False)
        if not is_finite(scored)
    ]
    unscored = None if is_finite(optimized) else "the optimized instruction has no finite IAS"
    notices = (rewriting.notice, *left_out, comparison.notice, unscored)
    return Optimization(
        initial=initial,
        rewritten=rewritten,
        optimized=optimized,
        chosen=decision.chosen,
        reason=decision.reason,
        notices=tuple(notice for notice in notices if notice),
    )


def _uncertainty(rewriting: Draft, settings: OptimizationSettings) -> str | None:
    """Says in words that a rewriting was written with too little certainty.

    >>> _uncertainty(Draft(text="x", certainty=0.555), OptimizationSettings(least_certainty=0.8))
    'was written with a certainty of 0.56, below 0.8'
    """
    least = settings.least_certainty or 0.0
    if rewriting.certainty is None or rewriting.certainty >= least:
        return None
    return f"was written with a certainty of {rewriting.certainty:.2f}, below {least:g}"
