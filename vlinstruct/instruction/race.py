"""Tune: which of several instructions is the best by a user's own measure, judged on a few dozen labelled items.

    items -> search part -> race -> finalist, on the held-out part ------> is it better than the user's words? -> chosen
             all items -> favourite, named before any label was looked at ->

The race is successive halving: all candidates are asked the same items in the same order, and after each rung the worse
half goes; the user's own words and the favourite always stay. Who wins a race is luck in part, so its score there is
too high: it is looked at again on items that chose nothing. The favourite was chosen by no item, so all of them can
speak for it. These are two looks; they share the probability of being wrong, so that both together err in 5 of 100
tasks at most in which no other instruction is better.

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
"""With fewer no finalist can be better with certainty: half of them decide, and six must be won and none lost."""

LEAST_ANSWERS = 2 * MIN_ITEMS
"""Those of the user's own words and one other instruction."""

FAVOURITE_LEVEL, FINALIST_LEVEL = 1 / 30, 1 / 60
"""How probable so good a result may be, were the instruction no better; together 5 %. Five of five, and six of six."""

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
        return self.num_search + self.num_held_out + raced + min(2, self.num_others) * self.num_held_out

    @property
    def num_others(self) -> int:
        """How many candidates beside the user's own words take part."""
        return self.rungs[0][0] if self.rungs else 0


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
class Look:
    """Another instruction beside the user's own words, on items that did not choose it.

    Args:
        number: the candidate.
        gain: its score less that of the user's own words.
        p_value: how probable such a gain is, were it no better.
        level: what the p-value may be at most.
        num_items: of how many items.
    """

    number: int
    gain: Interval
    p_value: float
    level: float
    num_items: int

    @property
    def is_certain(self) -> bool:
        """Whether the instruction is better with certainty."""
        return self.p_value <= self.level


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """How it ended.

    Args:
        chosen: the number of the instruction to use.
        raced: by number, what the race showed: too good for its winner.
        held_out: by number, what the held-out items showed of those that were asked them.
        looks: what was tried against the user's own words.
        reason: one sentence that says why.
    """

    chosen: int
    raced: Mapping[int, Figures]
    held_out: Mapping[int, Figures]
    looks: tuple[Look, ...]
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
        UsageError: the budget is below `LEAST_ANSWERS`.

    >>> plan_race(8, parts_of(48, seed=0)).rungs
    ((8, 6), (4, 12), (2, 24))
    """
    num_search, num_held_out = len(parts.search), len(parts.held_out)
    if budget is not None and budget < LEAST_ANSWERS:
        raise UsageError(f"a budget of {budget} compares no two instructions", advice=f"Raise it to {LEAST_ANSWERS}.")
    while True:
        for others in range(num_others, -1 if num_others == 0 else 0, -1):
            plan = Plan(rungs=_rungs(others, num_search), num_search=num_search, num_held_out=num_held_out)
            if budget is None or plan.num_answers <= budget:
                return plan
        num_search, num_held_out = num_search - 1, num_held_out - 1


def _rungs(num_others: int, num_items: int) -> tuple[tuple[int, int], ...]:
    if not num_others:
        return ()
    sizes = [num_items]
    while sizes[0] >= 2 * _FIRST_RUNG and num_others > 2 ** len(sizes):
        sizes.insert(0, sizes[0] // 2)
    return tuple((math.ceil(num_others / 2**rung), size) for rung, size in enumerate(sizes))


def race(
    candidates: Sequence[Candidate],
    parts: Parts,
    measure: Measure,
    *,
    plan: Plan,
    favourite: int | None,
    largest: float | None,
    seed: int,
    on_rung: Callable[[int, int], None] = lambda num_candidates, num_items: None,
) -> Tuned:
    """Finds the best instruction for the items.

    Args:
        candidates: K; the first is the user's own words. Of the others those that the plan has no room for are left
            out from the end.
        parts: the items.
        measure: asks a candidate; no item that it has a score of is asked again.
        plan: how many answers are asked for.
        favourite: the number of a candidate that was named before any label was looked at; None for none.
        largest: the most that a score can be; None where scores stay far below it (CIDEr).
        seed: of the resamples.
        on_rung: is told how many candidates are about to be asked how many items.

    Returns:
        The outcome; the user's own words are chosen where no item can be used.
    """
    search, held_out = parts.search[: plan.num_search], parts.held_out[: plan.num_held_out]
    scores: dict[int, dict[int, float]] = {}

    def ask(number: int, places: Sequence[int]) -> None:
        known = scores.setdefault(number, {})
        new = [place for place in places if place not in known]
        measured = zip(new, measure(number, new), strict=True)
        known.update({place: score for place, score in measured if score is not None})

    ask(OWN, search)
    usable = list(scores[OWN])
    others = list(range(1, 1 + plan.num_others))
    for num_others, num_items in plan.rungs:
        # The favourite stays among the best whatever its score, unless the user's own words are certainly better.
        others = sorted(others, key=lambda number: number != favourite)[:num_others]
        on_rung(len(others), min(num_items, len(usable)))
        for number in others:
            ask(number, usable[:num_items])
        worse = {number for number in others if _is_certainly_worse(scores[number], scores[OWN], seed)}
        others = [number for number in _ranked(others, scores, candidates) if number not in worse]
    raced = {number: _figures(list(row.values()), largest) for number, row in scores.items() if row}
    better = [number for number in others if _mean(scores[number]) > _mean(scores[OWN])]
    tried = {favourite: FAVOURITE_LEVEL} if favourite in others else {}
    if better:
        tried.setdefault(better[0], FINALIST_LEVEL)
    on_rung(1 + len(tried), len(held_out))
    for number in (OWN, *tried):
        ask(number, held_out)
    looks = []
    for number, level in tried.items():
        items = (*search, *held_out) if number == favourite else held_out
        # Of both: a picture of the web may be gone by the time that the second one is asked.
        places = [place for place in items if place in scores[OWN] and place in scores[number]]
        if places:
            pair = [[scores[row][place] for place in places] for row in (number, OWN)]
            looks.append(_look(number, *pair, level=level, largest=largest, seed=seed))
    held_out_scores = {
        number: [scores[number][place] for place in held_out if place in scores[number]] for number in (OWN, *tried)
    }
    certain = [look for look in looks if look.is_certain]
    best = max(certain, key=lambda look: (fmean(held_out_scores[look.number]), look.number == favourite), default=None)
    return Tuned(
        chosen=OWN if best is None else best.number,
        raced=raced,
        held_out={number: _figures(row, largest) for number, row in held_out_scores.items() if row},
        looks=tuple(looks),
        reason=_reason(best, looks),
    )


def _look(
    number: int, scores: Sequence[float], own: Sequence[float], *, level: float, largest: float | None, seed: int
) -> Look:
    differences = [score - ours for score, ours in zip(scores, own, strict=True)]
    spread = largest if largest is not None else max(*scores, *own) or 1.0
    return Look(
        number=number,
        gain=difference_interval(differences, largest=spread),
        p_value=sign_flip_p_value(differences, seed=seed),
        level=level,
        num_items=len(differences),
    )


def _reason(best: Look | None, looks: Sequence[Look]) -> str:
    if best is not None:
        return f"it is better than yours on {best.num_items} items that did not choose it (p = {best.p_value:.2g})"
    if not looks:
        return "yours: no other instruction scored higher in the race"
    least = min(look.p_value for look in looks)
    return f"yours: no other is better with certainty on items that did not choose it (p = {least:.2g})"


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
    if not differences.sum() < 0:  # nearly all of them: no resamples are needed
        return False
    return interval(differences[resampled_rows(len(differences), seed)].mean(axis=1)).high < 0


def _figures(scores: Sequence[float], largest: float | None) -> Figures:
    return Figures(score=score_interval(scores, largest=largest), num_items=len(scores))
