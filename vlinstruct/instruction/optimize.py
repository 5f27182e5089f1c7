"""Optimize: algorithm 2 of the paper from the user's instruction to the one that is used (section 3.2).

    instruction -> rewrite -> score -> rank -> compare -> score -> judge -> choose -> optimized instruction

Legend: B rows of the batch. In: B images with one instruction each. Out: B outcomes. Three model calls come before the
answer, as in the paper: rewriting (text alone), the IAS of the instructions in one batch, and the comparison. Scoring
the optimized instruction is ours, and so is judging: the rules that ask what the answers tell need both.

Under every rule but the paper's, what stands around the question (OCR tokens, options) is kept aside and put back, so
that only the question is rewritten. And where the answer to the user's own words is certain, they are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, replace
from typing import TypeVar

from vlinstruct.backend import Backend, Seen, check_rows
from vlinstruct.instruction.choose import JUDGED, NEEDS_IAS, RULES, Candidate, text_faults
from vlinstruct.instruction.compare import compare
from vlinstruct.instruction.content import content_changes, echoes, frame
from vlinstruct.instruction.judge import Answering, answers_to_judge, judge
from vlinstruct.instruction.rewrite import Draft, Rewritings, require_certainty, rewrite, sample_rewritings
from vlinstruct.instruction.score import is_finite, no_finite_ias, require_scores, score
from vlinstruct.instruction.templates import Templates, written_ias
from vlinstruct.settings import OptimizationSettings, Thresholds
from vlinstruct.text import is_blank
from vlinstruct.values import (
    ROLES,
    Answer,
    Failed,
    Judgement,
    Optimization,
    ScoredInstruction,
    TokenScores,
)

T = TypeVar("T")

NO_ANSWERING = Answering()
DEFAULT_THRESHOLDS = Thresholds()


def optimize(
    backend: Backend,
    seen: Sequence[Seen],
    instructions: Sequence[str],
    *,
    templates: Templates,
    settings: OptimizationSettings,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    answering: Answering = NO_ANSWERING,
    rewritings: Rewritings | None = None,
) -> list[Optimization | Failed]:
    """Optimizes one instruction per image (algorithm 2).

    Args:
        backend: rewrites, scores, compares and answers.
        seen: the images, B.
        instructions: the user's own, question and options included, B; none blank.
        templates: the texts that the model is sent.
        settings: how the instruction is chosen, and the most tokens of a generated one.
        thresholds: the backbone's own; those of the settings come first.
        answering: how instructions are answered, for the rules that ask what the answers tell.
        rewritings: those of earlier calls with this backend; gets what is new.

    Returns:
        One outcome per row, B. A row that fails, with a ScoreError where no score is finite, does not bring the others
        down.

    Raises:
        UsageError: the numbers of images and instructions differ, or the backend does not tell a certainty that is
            needed, or scores no given text where the rule is made of these.
    """
    check_rows(instructions, seen)
    thresholds = settings.thresholds(thresholds)
    least = thresholds.least_certainty if settings.select != "paper" else 0.0
    require_certainty(backend, least)  # now: later it would depend on which rows are left alone
    if settings.select in NEEDS_IAS:
        require_scores(backend, f"--select {settings.select}")
    failed: dict[int, Failed] = {}
    outcomes: dict[int, Optimization | Failed] = {}
    answers: dict[int, Answer] = {}
    if settings.leaves_sure_alone or settings.select in JUDGED:
        answered = answers_to_judge(backend, seen, instructions, answering)
        answers = _good(range(len(instructions)), answered, failed)
    if settings.leaves_sure_alone:
        outcomes = {
            row: _left_alone(instructions[row], given)
            for row, given in answers.items()
            if given.certainty is not None and given.certainty > thresholds.sure_above
        }
    todo = [row for row in range(len(instructions)) if row not in outcomes and row not in failed]
    outcomes |= zip(
        todo,
        _optimized(
            backend,
            [seen[row] for row in todo],
            [instructions[row] for row in todo],
            [answers.get(row) for row in todo],
            templates=templates,
            settings=settings,
            thresholds=thresholds,
            answering=answering.rows(todo),
            rewritings=rewritings,
        ),
        strict=True,
    )
    return [outcomes[row] if row in outcomes else failed[row] for row in range(len(instructions))]


def left_as_typed(instruction: str, reason: str) -> Optimization:
    """Returns the outcome of an instruction that is used as it was typed, though nothing was found out about it."""
    return Optimization(initial=_without_ias(instruction), chosen="initial", reason=reason)


def _left_alone(instruction: str, given: Answer) -> Optimization:
    outcome = left_as_typed(instruction, left_alone_reason(given.certainty or 0.0))
    return replace(outcome, initial=replace(outcome.initial, judgement=Judgement(answer=given)))


def left_alone_reason(certainty: float) -> str:
    """Says why nothing was rewritten."""
    return f"the answer to your own words is certain ({certainty:.2f}), so they were left alone"


def _optimized(
    backend: Backend,
    seen: Sequence[Seen],
    instructions: Sequence[str],
    answers: Sequence[Answer | None],
    *,
    templates: Templates,
    settings: OptimizationSettings,
    thresholds: Thresholds,
    answering: Answering,
    rewritings: Rewritings | None,
) -> list[Optimization | Failed]:
    """Runs all of algorithm 2 on every row."""
    frames = [("", text, "") if settings.select == "paper" else frame(text) for text in instructions]
    questions = [question for _, question, _ in frames]
    # Every step takes the rows that are still good: one that fails costs its own row and no model call later on.
    failed: dict[int, Failed] = {}
    least = thresholds.least_certainty if settings.select != "paper" else 0.0
    drafts = _good(
        range(len(instructions)), rewrite(backend, questions, templates, settings, least, rewritings), failed
    )
    pictures = [(seen[row],) if settings.rewrite_seeing else () for row in drafts]
    sampled = sample_rewritings(backend, pictures, [questions[row] for row in drafts], templates, settings)
    variants = {
        row: [text for text in dict.fromkeys((*settings.variants, *more)) if text not in (questions[row], draft.text)]
        for (row, draft), more in zip(drafts.items(), sampled, strict=True)
    }
    texts = {row: (questions[row], draft.text, *variants[row]) for row, draft in drafts.items()}
    if backend.abilities.can_score:
        made = _scored_and_compared(backend, seen, texts, drafts, templates, settings, failed)
    else:
        made = {row: (_unscored(texts[row], draft), [draft]) for row, draft in drafts.items()}
    outcomes = {
        row: framed(with_faults(outcome, written, templates, settings), frames[row])
        for row, (outcome, written) in made.items()
    }
    if settings.select in JUDGED:
        outcomes |= _judged(backend, seen, answers, outcomes, answering, thresholds)
    for row, outcome in outcomes.items():
        decision = RULES[settings.select](candidates_of(outcome), thresholds)
        outcomes[row] = replace(outcome, chosen=decision.chosen, reason=decision.reason)
    return [outcomes.get(row) or failed[row] for row in range(len(instructions))]


def _scored_and_compared(
    backend: Backend,
    seen: Sequence[Seen],
    texts: Mapping[int, Sequence[str]],
    drafts: Mapping[int, Draft],
    templates: Templates,
    settings: OptimizationSettings,
    failed: dict[int, Failed],
) -> dict[int, tuple[Optimization, list[Draft]]]:
    """Scores every row's instructions and lets the model compare the first two; returns what it wrote beside them."""
    scored = _good(drafts, score(backend, [seen[row] for row in drafts], list(texts.values()), templates), failed)
    for row in [row for row, candidates in scored.items() if not any(map(is_finite, candidates[:2]))]:
        failed[row] = Failed(error=no_finite_ias())
        del scored[row]
    pairs = {row: candidates[:2] for row, candidates in scored.items()}
    compared = compare(backend, [seen[row] for row in pairs], list(pairs.values()), templates, settings)
    comparisons = _good(pairs, compared, failed)
    # The comparison mostly copies one of the pair, whose score is there already: those rows score nothing.
    new = [
        [] if draft.text in [candidate.text for candidate in scored[row]] else [draft.text]
        for row, draft in comparisons.items()
    ]
    scores = score(backend, [seen[row] for row in comparisons], new, templates, stage="compare")
    made = {}
    for row, rest in _good(comparisons, scores, failed).items():
        optimized = next(candidate for candidate in (*scored[row], *rest) if candidate.text == comparisons[row].text)
        outcome = Optimization(
            initial=scored[row][0],
            rewritten=scored[row][1],
            optimized=optimized,
            variants=tuple(scored[row][2:]),
            chosen="initial",
            reason="",
            notices=notices_of(drafts[row], scored[row], comparisons[row], optimized),
        )
        made[row] = outcome, [drafts[row], comparisons[row]]
    return made


def _unscored(texts: Sequence[str], draft: Draft) -> Optimization:
    """Returns the candidates of a row where the backend scores no given text: nothing to compare them by in context."""
    initial, rewritten, *variants = map(_without_ias, texts)
    notices = (draft.notice,) if draft.notice else ()
    return Optimization(
        initial=initial, rewritten=rewritten, variants=tuple(variants), chosen="initial", reason="", notices=notices
    )


def _without_ias(text: str) -> ScoredInstruction:
    return ScoredInstruction(text=text, ias=math.nan, scores=TokenScores(tokens=(), token_nll=()))


def _judged(
    backend: Backend,
    seen: Sequence[Seen],
    answers: Sequence[Answer | None],
    outcomes: Mapping[int, Optimization],
    answering: Answering,
    thresholds: Thresholds,
) -> dict[int, Optimization]:
    """Adds to each row's candidates what their answers tell."""
    given = {row: answer for row in outcomes if (answer := answers[row]) is not None}
    # A candidate whose text is refused is not worth an answer.
    usable = {
        row: [candidate.role for candidate in candidates_of(outcomes[row]) if not text_faults(candidate, thresholds)]
        for row in given
    }
    judgements = judge(
        backend,
        [seen[row] for row in given],
        list(given.values()),
        [[outcomes[row].by_role()[role].text for role in roles] for row, roles in usable.items()],
        answering.rows(list(given)),
    )
    return {
        row: with_judgements(outcomes[row], dict(zip(usable[row], of_row, strict=True)))
        for row, of_row in zip(given, judgements, strict=True)
    }


def _good(rows: Iterable[int], results: Sequence[T | Failed], failed: dict[int, Failed]) -> dict[int, T]:
    """Returns the good results by their row; the others go into `failed`."""
    good: dict[int, T] = {}
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, Failed):
            failed[row] = result
        else:
            good[row] = result
    return good


def notices_of(
    rewriting: Draft, scored: Sequence[ScoredInstruction], comparison: Draft, optimized: ScoredInstruction
) -> tuple[str, ...]:
    """Returns what a user should know, in the order in which it happened."""
    left_out = [
        f"the {role} instruction has no finite IAS and was left out of the comparison"
        for role, candidate in zip(ROLES, scored[:2], strict=False)
        if not is_finite(candidate)
    ]
    unscored = None if is_finite(optimized) else "the optimized instruction has no finite IAS"
    return tuple(notice for notice in (rewriting.notice, *left_out, comparison.notice, unscored) if notice)


def with_faults(
    outcome: Optimization, drafts: Sequence[Draft], templates: Templates, settings: OptimizationSettings
) -> Optimization:
    """Adds what is wrong with the candidates' texts.

    Args:
        outcome: the candidates, as they were scored.
        drafts: the texts that the model wrote, with how certain it was of them.
        templates: the prompts that no candidate may repeat.
        settings: what must be kept.
    """
    initial = outcome.initial
    # The comparison's prompt shows instructions with their scores. A model that goes on with the pattern, instead of
    # writing an instruction, repeats the template's words or one of these numbers.
    shown_scores = [written_ias(scored.ias) for scored in (initial, outcome.rewritten) if scored and is_finite(scored)]

    def faults_of(text: str) -> tuple[str, ...]:
        if text in (initial.text, *settings.variants):  # people may well ask something else than they did before
            return ()
        if is_blank(text):
            return ("is blank",)
        is_echo = any(number in text and number not in initial.text for number in shown_scores) or any(
            echoes(template, initial=initial.text, candidate=text) for template in astuple(templates)
        )
        echo = ("repeats the prompt",) if is_echo else ()
        return (*echo, *content_changes(initial.text, text, keep=settings.keep))

    # By the text, not by the role: the comparison often copies the rewriting, and is then as uncertain. Last come the
    # user's own words, which nobody doubts.
    certainties = {draft.text: draft.certainty for draft in reversed(drafts)} | {initial.text: None}
    return _with_each(
        outcome,
        {
            role: replace(scored, faults=faults_of(scored.text), written_certainty=certainties.get(scored.text))
            for role, scored in outcome.by_role().items()
        },
    )


def framed(outcome: Optimization, frame: tuple[str, str, str]) -> Optimization:
    """Puts what was kept aside back around every candidate."""
    before, _, after = frame

    def put_back(scored: ScoredInstruction) -> ScoredInstruction:
        return replace(scored, text=f"{before}{scored.text}{after}") if before or after else scored

    return _with_each(outcome, {role: put_back(scored) for role, scored in outcome.by_role().items()})


def with_judgements(outcome: Optimization, judgements: Mapping[str, Judgement | Failed]) -> Optimization:
    """Adds judgements by role; a candidate that could not be answered cannot be used."""
    by_role = outcome.by_role()
    for role, judgement in judgements.items():
        if isinstance(judgement, Judgement):
            by_role[role] = replace(by_role[role], judgement=judgement)
        elif role != "initial":
            by_role[role] = replace(by_role[role], faults=(*by_role[role].faults, "could not be answered"))
    return _with_each(outcome, by_role)


def _with_each(outcome: Optimization, by_role: Mapping[str, ScoredInstruction]) -> Optimization:
    return replace(
        outcome,
        initial=by_role["initial"],
        rewritten=by_role.get("rewritten"),
        optimized=by_role.get("optimized"),
        variants=tuple(scored for role, scored in by_role.items() if role not in ROLES),
    )


def candidates_of(outcome: Optimization) -> list[Candidate]:
    """Returns what a rule knows of the candidates, the initial instruction first."""
    candidates = []
    for role, scored in outcome.by_role().items():
        candidate = Candidate(
            role=role,
            ias=scored.ias if is_finite(scored) else None,
            is_scored=bool(scored.scores.tokens),
            faults=scored.faults,
            written_certainty=scored.written_certainty,
        )
        if scored.judgement is not None:
            answer = scored.judgement.answer
            candidate = replace(
                candidate, answer=answer.text, certainty=answer.certainty, cross_nll=scored.judgement.cross_nll
            )
        candidates.append(candidate)
    return candidates
