"""Choose: which candidate instruction is used (algorithm 2's last step, with rules of ours).

A rule is a small pure function of what is known of the candidates; `RULES` names it, and so does `settings.Select`. It
reads no model and no prompt, so that a record is enough to tell what any rule would have chosen (`evaluate` does).

The paper always takes the optimized instruction. An IAS tells fluency: a fluent instruction that asks something else
scores well and answers badly. So `safe` asks what the answers tell (`judge.py`), and what the texts do (`content.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from vlinstruct.instruction.templates import written_ias
from vlinstruct.metrics.vqa_accuracy import is_lavis_match
from vlinstruct.settings import Select, Thresholds
from vlinstruct.values import ROLES


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a rule knows of an instruction.

    Args:
        role: which one it is: `initial`, `rewritten`, `optimized`, `variant 1` ...
        ias: mean nats per token given the image; None where it is not finite.
        is_scored: False where the backend scores no given text, so that nobody has an IAS.
        faults: why its text cannot be trusted, in words; the initial instruction has none.
        written_certainty: the probability of its least likely token when it was written; None where it was not written
            by the model, or that is not known.
        answer: to it; None where it was not answered.
        certainty: of that answer: the probability of its least likely first token; None where it is not known.
        cross_nll: mean nats of that answer's first tokens as an answer to the initial instruction; None where it is not
            known.
    """

    role: str
    ias: float | None = None
    is_scored: bool = True
    faults: tuple[str, ...] = ()
    written_certainty: float | None = None
    answer: str | None = None
    certainty: float | None = None
    cross_nll: float | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Which instruction is used.

    Args:
        chosen: its role.
        reason: one sentence that says why.
    """

    chosen: str
    reason: str


Rule = Callable[[Sequence[Candidate], Thresholds], Decision]


def paper(candidates: Sequence[Candidate], thresholds: Thresholds) -> Decision:
    """Takes the optimized instruction, whatever its IAS.

    >>> paper([Candidate(role="initial", ias=1.0), Candidate(role="optimized", ias=2.0)], Thresholds()).chosen
    'optimized'
    """
    return Decision(chosen="optimized", reason="the paper always takes the optimized instruction")


def ias(candidates: Sequence[Candidate], thresholds: Thresholds) -> Decision:
    """Takes the lowest IAS of those whose text can be trusted; the earlier one on ties.

    >>> ias([Candidate(role="initial", ias=2.0), Candidate(role="rewritten", ias=1.0)], Thresholds()).chosen
    'rewritten'
    """
    return _lowest_ias(candidates, {candidate.role: text_faults(candidate, thresholds) for candidate in candidates})


def agree(candidates: Sequence[Candidate], thresholds: Thresholds) -> Decision:
    """As `ias`, of those that are answered like the user's own words: needs no likelihood of an answer.

    >>> typed = Candidate(role="initial", ias=2.0, answer="red")
    >>> agree([typed, Candidate(role="rewritten", ias=1.0, answer="Red.")], Thresholds()).chosen
    'rewritten'
    """
    unknown = [replace(candidate, cross_nll=None) for candidate in candidates]
    return _lowest_ias(candidates, _cross_faults(unknown, thresholds))


def cross(candidates: Sequence[Candidate], thresholds: Thresholds) -> Decision:
    """As `ias`, of those whose answer is plausible as an answer to the user's own words.

    >>> typed = Candidate(role="initial", ias=2.0, answer="yes")
    >>> cross([typed, Candidate(role="rewritten", ias=1.0, answer="blue", cross_nll=7.5)], Thresholds()).chosen
    'initial'
    """
    return _lowest_ias(candidates, _cross_faults(candidates, thresholds))


# `safe` is the rule that was never worse (tests/tools/README.md); by default it leaves alone what the model is sure of.
RULES: Mapping[Select, Rule] = {"safe": cross, "cross": cross, "agree": agree, "ias": ias, "paper": paper}
JUDGED: frozenset[Select] = frozenset({"safe", "cross", "agree"})
"""The rules that ask what the answers tell."""
NEEDS_IAS: frozenset[Select] = frozenset({"ias", "paper"})
"""The rules that are nothing without it."""


def _cross_faults(candidates: Sequence[Candidate], thresholds: Thresholds) -> dict[str, tuple[str, ...]]:
    """Returns every candidate's faults, an answer that does not answer the user's words among them.

    Where no likelihood is known (a server that cannot score, a score that is not finite), only the same answer passes.
    """
    initial, *others = candidates
    faults = {initial.role: text_faults(initial, thresholds)}
    for candidate in others:
        faults[candidate.role] = text_faults(candidate, thresholds)
        if faults[candidate.role]:  # refused for its text, and so perhaps not answered
            continue
        if candidate.cross_nll is None:
            passes, why = _is_answered_alike(candidate, initial), "is answered otherwise"
        else:
            passes = candidate.cross_nll < thresholds.max_cross_nll
            why = f"is answered by what hardly answers yours ({candidate.cross_nll:.1f} nats)"
        if not passes:
            faults[candidate.role] = (why,)
    return faults


def _is_answered_alike(candidate: Candidate, other: Candidate) -> bool:
    """Returns whether both were answered, and by the same words."""
    if candidate.answer is None or other.answer is None:
        return False
    return is_lavis_match(candidate.answer, other.answer)


def text_faults(candidate: Candidate, thresholds: Thresholds) -> tuple[str, ...]:
    """Returns why a candidate's text cannot be trusted, in words, whatever its answer.

    >>> text_faults(Candidate(role="rewritten", written_certainty=0.555), Thresholds(least_certainty=0.8))
    ('was written with a certainty of 0.56, below 0.8',)
    """
    certainty, least = candidate.written_certainty, thresholds.least_certainty
    if certainty is None or certainty >= least:
        return candidate.faults
    return (f"was written with a certainty of {certainty:.2f}, below {least:g}", *candidate.faults)


def _lowest_ias(candidates: Sequence[Candidate], faults: Mapping[str, Sequence[str]]) -> Decision:
    """Takes the lowest finite IAS of the candidates without a fault; the initial instruction where there is none.

    Where nothing was scored, as by a server that cannot, it takes the one whose answer is most certain.
    """
    passing = [candidate for candidate in candidates if not faults[candidate.role]]
    finite = [candidate for candidate in passing if candidate.ias is not None and math.isfinite(candidate.ias)]
    refused = [f"{_named(role, 'one')} {_listed(wrong)}" for role, wrong in faults.items() if wrong]
    if any(candidate.is_scored for candidate in candidates):
        winner = min(finite, key=lambda candidate: candidate.ias or 0.0, default=candidates[0])
        reason = f"{_named(winner.role, 'instruction')} has the lowest IAS"
        if winner.ias is not None:
            reason += f" ({written_ias(winner.ias)})"
    else:
        winner = max(passing, key=lambda candidate: candidate.certainty or 0.0, default=candidates[0])
        reason = f"{_named(winner.role, 'instruction')} has the most certain answer"
        if winner.certainty is not None:
            reason += f" ({winner.certainty:.2f})"
    if refused:
        reason = f"{reason} of those that can be used; {', '.join(refused)}"
    return Decision(chosen=winner.role, reason=reason)


def _named(role: str, noun: str) -> str:
    """Names a candidate in a sentence.

    >>> _named("rewritten", "one"), _named("variant 1", "one")
    ('the rewritten one', 'variant 1')
    """
    return f"the {role} {noun}" if role in ROLES else role


def _listed(faults: Sequence[str]) -> str:
    """Joins faults, the first two by name.

    >>> _listed(["is a", "is b", "is c"])
    'is a and is b and 1 more'
    """
    shown, num_hidden = faults[:2], len(faults) - 2
    return " and ".join([*shown, f"{num_hidden} more"] if num_hidden > 0 else shown)
