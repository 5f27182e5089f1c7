"""Tune: which of several instructions is the best by a user's own measure, judged on a few dozen labelled items.

    items -> search part -> race -> finalist -> held-out part: is it better than the user's own words? -> chosen

The race is successive halving: all candidates are asked the same items in the same order, and after each rung the worse
half goes; the user's own words always stay. Who wins a race is luck in part, so its score there is too high. Therefore
one finalist alone goes to items that chose nothing, which are looked at once, and replaces the user's words only if it
is better there with certainty. What is told of the two is from there.

Nothing but answers is needed: no likelihoods, no torch, no files. Ours; the paper has no labels.

Legend: N items, each its place from 0; K candidates, each its number, 0 the user's own words.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from vlinstruct.errors import UsageError
from vlinstruct.metrics.bootstrap import Interval, interval, resampled_rows
from vlinstruct.metrics.paired import difference_interval, score_interval, sign_flip_p_value

OWN = 0
"""The number of the user's own words."""

MIN_ITEMS = 12
"""With fewer no instruction can be better with certainty: half of them decide, and six must be won and none lost."""

LEVEL = 0.025
"""How probable so good a finalist may be, were it no better: that of a 95 % interval that lies above 0."""

_FIRST_RUNG = 6  # of fewer right and wrong answers the better half is chance

Measure = Callable[[int, Sequence[int]], Sequence[float | None]]
"""Returns a candidate's score on each of some items, higher is better; None where an item cannot be used at all."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An instruction that takes part.

    Args:
        text: the instruction, or a template with a field for an item's question.
        source: who proposed it first.
        num_proposed: how often it was proposed; of equal scores the more popular one is taken.
    """

    text: str
    source: str
    num_proposed: int = 1


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The items, divided by chance.

    Args:
        search: what the race is run on, in the order in which every candidate is asked them.
        held_out: what chooses nothing before the race is over.
    """

    search: tuple[int, ...]
    held_out: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a race costs.

    Args:
        rungs: how many candidates beside the user's own words are asked how many items, the first rung first.
        num_search: items of the search part that are used.
        num_held_out: items of the held-out part that are used.
    """

    rungs: tuple[tuple[int, int], ...]
    num_search: int
    num_held_out: int

    @property
    def num_answers(self) -> int:
        """The most answers that it takes, those to the user's own words included."""
        before = [0, *(num_items for _, num_items in self.rungs)]
        raced = sum(
            num_others * (num_items - done) for (num_others, num_items), done in zip(self.rungs, before, strict=False)
        )
        return self.num_search + self.num_held_out + raced + (self.num_held_out if self.rungs else 0)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is known of a candidate from some items.

    Args:
        score: the mean, with its 95 % interval.
        num_items: of how many items.
    """

    score: Interval
    num_items: int


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """How it ended.

    Args:
        chosen: the number of the instruction to use.
        finalist: the number of the one that was tried against the user's own words; None where none won the race.
        raced: by number, what the race showed: too good for its winner.
        held_out: by number, what the held-out items showed of the user's own words and the finalist.
        gain: the finalist's score less that of the user's own words on the held-out items; None without a finalist.
        p_value: how probable such a gain is, were the finalist no better.
        reason: one sentence that says why.
    """

    chosen: int
    finalist: int | None
    raced: Mapping[int, Figures]
    held_out: Mapping[int, Figures]
    gain: Interval | None
    p_value: float | None
    reason: str


def parts_of(num_items: int, *, seed: int) -> Parts:
    """Divides the items by chance into halves.

    >>> sorted(map(len, vars(parts_of(15, seed=0)).values()))
    [7, 8]
    """
    places = list(range(num_items))
    random.Random(f"tune/{seed}").shuffle(places)
    num_search = num_items // 2
    return Parts(search=tuple(places[:num_search]), held_out=tuple(places[num_search:]))


def plan_race(num_others: int, parts: Parts, *, budget: int | None = None) -> Plan:
    """Returns the largest race that a number of answers allows: first fewer candidates, then fewer items.

    Args:
        num_others: candidates beside the user's own words.
        parts: the items.
        budget: the most answers; None for as many as it takes.

    Raises:
        UsageError: not even two candidates can be compared.

    >>> plan_race(8, parts_of(48, seed=0)).rungs
    ((8, 6), (4, 12), (2, 24))
    """
    num_search, num_held_out = len(parts.search), len(parts.held_out)
    while True:
        for others in range(num_others, -1 if num_others == 0 else 0, -1):
            plan = Plan(rungs=_rungs(others, num_search), num_search=num_search, num_held_out=num_held_out)
            if budget is None or plan.num_answers <= budget:
                return plan
        num_search, num_held_out = num_search - 1, num_held_out - 1
        if num_held_out < MIN_ITEMS // 2 or num_search < 1:
            least = 4 * (MIN_ITEMS // 2)
            raise UsageError(f"the budget leaves {budget} answers, at least {least} are needed: raise --budget")


def _rungs(num_others: int, num_items: int) -> tuple[tuple[int, int], ...]:
    if not num_others:
        return ()
    sizes = [num_items]
    while sizes[0] >= 2 * _FIRST_RUNG and num_others > 2 ** len(sizes):
        sizes.insert(0, sizes[0] // 2)
    return tuple((math.ceil(num_others / 2**rung), size) for rung, size in enumerate(sizes))


def tune(
    candidates: Sequence[Candidate],
    parts: Parts,
    measure: Measure,
    *,
    plan: Plan,
    largest: float | None,
    seed: int,
    on_rung: Callable[[int, int], None] = lambda num_candidates, num_items: None,
) -> Tuned:
    """Finds the best instruction for the items.

    Args:
        candidates: K; the first is the user's own words. Of the others those that the plan has no room for are left
            out from the end.
        parts: the items.
        measure: asks a candidate; the same question may come twice.
        plan: how many answers are asked for.
        largest: the most that a score can be; None where scores stay far below it (CIDEr).
        seed: of the resamples.
        on_rung: is told how many candidates are about to be asked how many items.

    Returns:
        The outcome; the user's own words are chosen where no item can be used.
    """
    own = dict(zip(parts.search, measure(OWN, parts.search[: plan.num_search]), strict=False))
    search = [place for place, score in own.items() if score is not None]
    scores = {OWN: {place: score for place, score in own.items() if score is not None}}
    others = list(range(1, len(candidates)))[: plan.rungs[0][0] if plan.rungs else 0]
    for num_others, num_items in plan.rungs:
        others, places = others[:num_others], search[:num_items]
        on_rung(len(others), len(places))
        for number in others:
            measured = measure(number, places)
            scores[number] = {place: score or 0.0 for place, score in zip(places, measured, strict=True)}
        others = [
            number
            for number in _ranked(others, scores, candidates)
            if not _is_certainly_worse(scores[number], scores[OWN], seed)
        ]
    better = [number for number in others if _mean(scores[number]) > _mean(scores[OWN])]
    raced = {number: _figures(list(row.values()), largest) for number, row in scores.items() if row}
    finalist = better[0] if better else None
    held = parts.held_out[: plan.num_held_out]
    on_rung(1 if finalist is None else 2, len(held))
    rows = {number: measure(number, held) for number in ([OWN] if finalist is None else [OWN, finalist])}
    usable = [index for index, score in enumerate(rows[OWN]) if score is not None]
    kept = {number: [row[index] or 0.0 for index in usable] for number, row in rows.items()}
    held_out = {number: _figures(row, largest) for number, row in kept.items() if row}
    if finalist is None or not usable:
        reason = "no other instruction scored higher than yours in the race"
        return Tuned(chosen=OWN, finalist=None, raced=raced, held_out=held_out, gain=None, p_value=None, reason=reason)
    differences = [other - ours for other, ours in zip(kept[finalist], kept[OWN], strict=True)]
    spread = largest if largest is not None else max(map(max, kept.values())) or 1.0
    gain = difference_interval(differences, largest=spread)
    p_value = sign_flip_p_value(differences, seed=seed)
    is_better = p_value <= LEVEL
    on = f"on {len(usable)} items that it was not chosen by (p = {p_value:.2g})"
    reason = f"it is better than yours {on}" if is_better else f"no other is better with certainty {on}"
    return Tuned(
        chosen=finalist if is_better else OWN,
        finalist=finalist,
        raced=raced,
        held_out=held_out,
        gain=gain,
        p_value=p_value,
        reason=reason,
    )


def _mean(scores: Mapping[int, float]) -> float:
    return fmean(scores.values()) if scores else 0.0


def _ranked(
    numbers: Sequence[int], scores: Mapping[int, Mapping[int, float]], candidates: Sequence[Candidate]
) -> list[int]:
    """Returns the best first; of equal scores the one that was proposed more often, then the earlier one."""
    return sorted(numbers, key=lambda number: (-_mean(scores[number]), -candidates[number].num_proposed, number))


def _is_certainly_worse(scores: Mapping[int, float], own: Mapping[int, float], seed: int) -> bool:
    """Says whether the bootstrap's 95 % interval of the difference from the user's own words lies below 0."""
    differences = np.array([score - own[place] for place, score in scores.items()])
    if not len(differences):
        return False
    return interval(differences[resampled_rows(len(differences), seed)].mean(axis=1)).high < 0


def _figures(scores: Sequence[float], largest: float | None) -> Figures:
    return Figures(score=score_interval(scores, largest=largest), num_items=len(scores))
