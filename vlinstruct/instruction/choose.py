"""Choose: which of the three instructions is used (algorithm 2's last step, with a safe variant of ours).

The paper always takes the optimized instruction. By default we take the lowest IAS among the candidates that keep the
initial instruction's content: a fluent instruction that lost the question's number scores well and answers badly.
A rule is a function of the candidates; it is named in `RULES` and in `settings.Select`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass

from vlinstruct.instruction.content import content_changes, echoes
from vlinstruct.instruction.score import best, is_finite
from vlinstruct.instruction.templates import Templates, written_ias
from vlinstruct.settings import Select
from vlinstruct.text import is_blank
from vlinstruct.values import ROLES, Role, ScoredInstruction


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Which instruction is used.

    Args:
        chosen: its role.
        reason: one sentence that says why.
    """

    chosen: Role
    reason: str


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """What a rule chooses from.

    Args:
        initial: the user's instruction with its IAS.
        rewritten: the rewriting with its IAS.
        optimized: the comparison's outcome with its IAS.
        templates: the prompts that no candidate may repeat.
        uncertain: what is wrong with the rewriting's text, whichever candidate has it, in words; None for nothing.
    """

    initial: ScoredInstruction
    rewritten: ScoredInstruction
    optimized: ScoredInstruction
    templates: Templates
    uncertain: str | None = None

    def by_role(self) -> dict[Role, ScoredInstruction]:
        """Returns the three instructions, initial before rewritten before optimized."""
        return dict(zip(ROLES, (self.initial, self.rewritten, self.optimized), strict=True))


def choose(candidates: Candidates, select: Select) -> Decision:
    """Chooses one of algorithm 2's three instructions.

    Args:
        candidates: the three, and what is known about them.
        select: a key of `RULES`.

    Raises:
        ScoreError: no IAS is finite, or under `safe` none of a candidate that keeps the content.
    """
    best(list(candidates.by_role().values()))  # refuses three scores of which none is finite, under every rule
    return RULES[select](candidates)


def paper(candidates: Candidates) -> Decision:
    """Takes the optimized instruction, whatever its IAS."""
    return Decision(chosen="optimized", reason="the paper always takes the optimized instruction")


def safe(candidates: Candidates) -> Decision:
    """Takes the lowest finite IAS of those that keep the content; initial before rewritten before optimized on ties."""
    scored = candidates.by_role()
    faults = {role: _faults(candidate.text, candidates) for role, candidate in scored.items()}
    passing = {role: candidate for role, candidate in scored.items() if not faults[role]}
    winner = best(list(passing.values()))
    chosen = next(role for role, candidate in passing.items() if candidate is winner)
    reason = f"the {chosen} instruction has the lowest IAS ({written_ias(winner.ias)})"
    refused = [f"the {role} one {_listed(wrong)}" for role, wrong in faults.items() if wrong]
    if refused:
        reason = f"{reason} of those that can be used; {', '.join(refused)}"
    return Decision(chosen=chosen, reason=reason)


Rule = Callable[[Candidates], Decision]
RULES: Mapping[Select, Rule] = {"safe": safe, "paper": paper}


def _faults(text: str, candidates: Candidates) -> list[str]:
    """Returns why a candidate's text cannot be trusted, in words; the initial instruction's text always can."""
    initial, rewritten = candidates.initial, candidates.rewritten
    if text == initial.text:
        return []
    # By the text, not by the role: the comparison often copies the rewriting, and is then as uncertain.
    faults = [candidates.uncertain] if candidates.uncertain is not None and text == rewritten.text else []
    if is_blank(text):
        return [*faults, "is blank"]
    # The comparison's prompt shows instructions with their scores. A model that goes on with the pattern, instead of
    # writing an instruction, repeats the template's words or one of these numbers.
    shown_scores = [written_ias(scored.ias) for scored in (initial, rewritten) if is_finite(scored)]
    if any(number in text and number not in initial.text for number in shown_scores) or any(
        echoes(template, initial=initial.text, candidate=text) for template in astuple(candidates.templates)
    ):
        faults.append("repeats the prompt")
    return [*faults, *content_changes(initial.text, text)]


def _listed(faults: list[str]) -> str:
    """Joins faults, the first two by name.

    >>> _listed(["is a", "is b", "is c"])
    'is a and is b and 1 more'
    """
    shown, num_hidden = faults[:2], len(faults) - 2
    return " and ".join([*shown, f"{num_hidden} more"] if num_hidden > 0 else shown)
