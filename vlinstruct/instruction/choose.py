"""Choose: which of the three instructions is used (algorithm 2's last step, with a safe variant of ours).

The paper always takes the optimized instruction. By default we take the lowest IAS among the candidates that keep the
initial instruction's content: a fluent instruction that lost the question's number scores well and answers badly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

from vlinstruct.instruction.content import content_changes, echoes
from vlinstruct.instruction.rank import best, is_finite
from vlinstruct.instruction.templates import Templates, written_ias
from vlinstruct.settings import Select
from vlinstruct.text import is_blank
from vlinstruct.values import Role, ScoredInstruction

ROLES: tuple[Role, ...] = ("initial", "rewritten", "optimized")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Which instruction is used.

    Args:
        chosen: its role.
        reason: one sentence that says why.
    """

    chosen: Role
    reason: str


def choose(
    initial: ScoredInstruction,
    rewritten: ScoredInstruction,
    optimized: ScoredInstruction,
    *,
    templates: Templates,
    select: Select,
    uncertain: str | None = None,
) -> Decision:
    """Chooses one of algorithm 2's three instructions.

    Args:
        initial: the user's instruction with its IAS.
        rewritten: the rewriting with its IAS.
        optimized: the comparison's outcome with its IAS.
        templates: the prompts that no candidate may repeat.
        select: `paper` takes the optimized instruction, whatever its IAS; `safe` the lowest finite IAS among the
            candidates that keep the content, initial before rewritten before optimized on ties.
        uncertain: what is wrong with the rewriting's text, wherever it stands, in words; None for nothing.

    Returns:
        The decision.

    Raises:
        ScoreError: no IAS is finite, or under `safe` none of a candidate that keeps the content.
    """
    candidates = dict(zip(ROLES, (initial, rewritten, optimized), strict=True))
    # Raises where no candidate has a finite IAS, under `paper`, too: a choice among NaNs would be no choice.
    best(list(candidates.values()))
    if select == "paper":
        return Decision(chosen="optimized", reason="the paper always takes the optimized instruction")
    faults = {role: _faults(one, initial, rewritten, templates) for role, one in candidates.items()}
    if uncertain is not None:
        for role, one in candidates.items():
            # The comparison often repeats the rewriting: what is uncertain stays so wherever its text came from.
            if one.text == rewritten.text != initial.text:
                faults[role] = [uncertain, *faults[role]]
    passing = {role: one for role, one in candidates.items() if not faults[role]}
    winner = best(list(passing.values()))
    chosen = next(role for role, one in passing.items() if one is winner)
    return Decision(chosen=chosen, reason=_reason(chosen, winner, faults))


def _faults(
    candidate: ScoredInstruction, initial: ScoredInstruction, rewritten: ScoredInstruction, templates: Templates
) -> list[str]:
    """Returns why the candidate cannot be trusted, in words; the initial instruction's text always can."""
    if candidate.text == initial.text:
        return []
    if is_blank(candidate.text):
        return ["is blank"]
    is_echo = any(echoes(template, initial=initial.text, candidate=candidate.text) for template in astuple(templates))
    if is_echo or _repeats_ias(candidate.text, initial, rewritten):
        return ["repeats the prompt", *content_changes(initial.text, candidate.text)]
    return content_changes(initial.text, candidate.text)


def _repeats_ias(candidate: str, initial: ScoredInstruction, rewritten: ScoredInstruction) -> bool:
    """Says whether a number of the comparison's prompt leaked into the candidate."""
    shown = [written_ias(one.ias) for one in (initial, rewritten) if is_finite(one)]
    return any(number in candidate and number not in initial.text for number in shown)


def _reason(chosen: Role, winner: ScoredInstruction, faults: Mapping[Role, Sequence[str]]) -> str:
    """Says in one sentence what won and what was wrong with the others."""
    wins = f"the {chosen} instruction has the lowest IAS ({written_ias(winner.ias)})"
    refused = [f"the {role} one {_listed(found)}" for role, found in faults.items() if found]
    return f"{wins} of those that can be used; {', '.join(refused)}" if refused else wins


def _listed(faults: Sequence[str]) -> str:
    """Joins faults, the first two by name.

    >>> _listed(["is a", "is b", "is c"])
    'is a and is b and 1 more'
    """
    shown, hidden = faults[:2], len(faults) - 2
    return " and ".join([*shown, f"{hidden} more"] if hidden > 0 else shown)
