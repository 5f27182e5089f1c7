"""Choosing among candidates: the rules are functions of what is known of them, of which a thousand draws are cheap."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, get_args

import pytest

from vlinstruct.instruction.choose import JUDGED, RULES, Candidate
from vlinstruct.settings import Select, Thresholds
from vlinstruct.values import ROLES

SELECTS = get_args(Select)
THRESHOLDS = Thresholds()


def candidates(*ias: float | None, **more: Any) -> list[Candidate]:
    """The initial instruction and others, all answered alike."""
    known: dict[str, Any] = {"answer": "red", **more}
    return [Candidate(role=role, ias=value, **known) for role, value in zip(ROLES, ias, strict=False)]


def chosen(select: Select, known: list[Candidate], thresholds: Thresholds = THRESHOLDS) -> str:
    return RULES[select](known, thresholds).chosen


def drawn(draws: random.Random) -> list[Candidate]:
    """The initial instruction with up to five others, anything of which may be unknown or at fault."""

    def maybe(value: Any) -> Any:
        return draws.choice([value, value, None])

    roles = ["rewritten", "optimized", "variant 1", "variant 2"][: draws.randint(0, 4)]
    initial = Candidate(
        role="initial",
        ias=maybe(draws.uniform(0, 5)),
        answer=maybe(draws.choice("ab")),
        certainty=maybe(draws.random()),
    )
    others = [
        Candidate(
            role=role,
            ias=maybe(draws.choice([1.0, draws.uniform(0, 5)])),
            faults=draws.choice([(), (), ("is blank",), ("is a", "is b", "is c")]),
            written_certainty=maybe(draws.random()),
            answer=maybe(draws.choice("ab")),
            certainty=maybe(draws.random()),
            cross_nll=maybe(draws.choice([draws.uniform(0, 3), math.inf])),
        )
        for role in roles
    ]
    return [initial, *others]


@pytest.fixture(params=range(3))
def draws(request: pytest.FixtureRequest) -> Callable[[], Iterator[tuple[list[Candidate], Thresholds]]]:
    def give() -> Iterator[tuple[list[Candidate], Thresholds]]:
        source = random.Random(request.param)
        for _ in range(300):
            thresholds = Thresholds(
                least_certainty=source.choice([0.0, source.random()]), max_cross_nll=source.uniform(0.01, 3)
            )
            yield drawn(source), thresholds

    return give


def test_every_rule_can_be_selected_and_every_selection_has_a_rule() -> None:
    assert set(RULES) == set(SELECTS)
    assert set(SELECTS) >= JUDGED


@pytest.mark.parametrize("select", [select for select in SELECTS if select != "paper"])
@pytest.mark.parametrize(
    ("ias", "role"),
    [
        ((1.0, 2.0, 3.0), "initial"),
        ((2.0, 1.0, 3.0), "rewritten"),
        ((3.0, 2.0, 1.0), "optimized"),
        ((1.0, 1.0, 1.0), "initial"),
        ((2.0, 1.0, 1.0), "rewritten"),
        ((1.0, 2.0, 1.0), "initial"),
        ((None, 2.0, 3.0), "rewritten"),
        ((3.0, None, None), "initial"),
        ((3.0, math.nan, 2.0), "optimized"),
        ((math.inf, -math.inf, 2.0), "optimized"),
    ],
)
def test_of_trusted_candidates_the_lowest_finite_ias_is_taken_and_the_earliest_of_equals(
    select: Select, ias: tuple[float | None, ...], role: str
) -> None:
    assert chosen(select, candidates(*ias)) == role


@pytest.mark.parametrize("select", [select for select in SELECTS if select != "paper"])
def test_where_nothing_can_be_compared_the_initial_instruction_stays(select: Select) -> None:
    nothing = [replace(candidate, ias=None) for candidate in candidates(1.0, 2.0, 3.0)]
    assert chosen(select, nothing) == "initial"
    refused = [replace(candidate, faults=("is blank",)) for candidate in candidates(1.0, 1.0, 1.0)[1:]]
    assert chosen(select, [*candidates(None), *refused]) == "initial"


def test_paper_always_takes_the_optimized_instruction() -> None:
    faulty = [replace(candidate, faults=("is blank",), answer=None) for candidate in candidates(1.0, 2.0, None)]
    decision = RULES["paper"](faulty, THRESHOLDS)
    assert (decision.chosen, decision.reason) == ("optimized", "the paper always takes the optimized instruction")


def test_the_reason_names_the_score_and_every_refused_candidate() -> None:
    known = candidates(3.0, 2.0, 1.0)
    assert RULES["ias"](known[:2], THRESHOLDS).reason == "the rewritten instruction has the lowest IAS (2.0000)"
    known[2] = replace(known[2], cross_nll=7.54)
    assert RULES["cross"](known, THRESHOLDS).reason == (
        "the rewritten instruction has the lowest IAS (2.0000) of those that can be used; "
        "the optimized one is answered by what hardly answers yours (7.5 nats)"
    )


def test_the_reason_stays_one_short_sentence() -> None:
    known = candidates(3.0, 2.0)
    known[1] = replace(known[1], faults=tuple(f"loses the number {number:050}" for number in range(100)))
    reason = RULES["safe"](known, THRESHOLDS).reason
    assert reason.endswith("and 98 more")
    assert len(reason) < 300


@pytest.mark.parametrize("select", sorted(JUDGED))
def test_a_judging_rule_wants_an_answer_and_an_ias_rule_none(select: Select) -> None:
    unanswered = candidates(2.0, 1.0, answer=None)
    assert (chosen(select, unanswered), chosen("ias", unanswered)) == ("initial", "rewritten")


@pytest.mark.parametrize(
    ("cross_nll", "answer", "by_cross", "by_agree"),
    [
        (0.99, "blue", "rewritten", "initial"),
        (1.0, "blue", "initial", "initial"),  # what is as implausible as the threshold is too implausible
        (1.0, "red", "initial", "rewritten"),
        (math.inf, "", "initial", "initial"),
        (None, "Red.", "rewritten", "rewritten"),  # without a likelihood the same answer must do
        (None, "blue", "initial", "initial"),
        (None, None, "initial", "initial"),
    ],
)
def test_cross_asks_the_likelihood_where_it_is_known_and_agree_never(
    cross_nll: float | None, answer: str | None, by_cross: str, by_agree: str
) -> None:
    known = candidates(2.0, 1.0)
    known[1] = replace(known[1], cross_nll=cross_nll, answer=answer)
    assert (chosen("cross", known), chosen("safe", known), chosen("agree", known)) == (by_cross, by_cross, by_agree)


def test_an_uncertain_rewriting_is_refused_by_all_but_the_paper() -> None:
    known = candidates(2.0, 1.0, 1.0)
    known[1:] = [replace(candidate, written_certainty=0.5) for candidate in known[1:]]
    by_rule = {select: chosen(select, known, Thresholds(least_certainty=0.51)) for select in SELECTS}
    assert by_rule == {**dict.fromkeys(SELECTS, "initial"), "paper": "optimized"}


@pytest.mark.parametrize("select", [select for select in SELECTS if select != "paper"])
def test_a_candidate_with_a_fault_is_never_taken_and_the_initial_instruction_always_may_be(
    select: Select, draws: Callable[[], Iterator[tuple[list[Candidate], Thresholds]]]
) -> None:
    num_taken = 0
    for known, thresholds in draws():
        decision = RULES[select](known, thresholds)
        taken = next(candidate for candidate in known if candidate.role == decision.chosen)
        assert not taken.faults
        assert taken.written_certainty is None or taken.written_certainty >= thresholds.least_certainty
        # Lower than the initial instruction's, or else that one had been taken.
        if taken is not known[0]:
            assert taken.ias is not None
            assert known[0].ias is None or taken.ias < known[0].ias
            num_taken += 1
    assert num_taken > 10


@pytest.mark.parametrize("select", sorted(JUDGED))
def test_what_a_judging_rule_takes_is_answered_plausibly_or_alike(
    select: Select, draws: Callable[[], Iterator[tuple[list[Candidate], Thresholds]]]
) -> None:
    for known, thresholds in draws():
        taken = next(candidate for candidate in known if candidate.role == chosen(select, known, thresholds))
        is_plausible = taken.cross_nll is not None and taken.cross_nll < thresholds.max_cross_nll
        is_alike = taken.answer is not None and taken.answer == known[0].answer
        is_trusted = {"agree": is_alike}.get(select, is_plausible if taken.cross_nll is not None else is_alike)
        assert taken is known[0] or is_trusted


def test_a_higher_threshold_never_refuses_what_a_lower_one_took(
    draws: Callable[[], Iterator[tuple[list[Candidate], Thresholds]]],
) -> None:
    num_more = 0
    for known, thresholds in draws():
        laxer = replace(thresholds, max_cross_nll=2 * thresholds.max_cross_nll)
        for candidate in known[1:]:
            # Alone with an initial instruction of no finite IAS a candidate is taken as soon as it may be.
            pair = [replace(known[0], ias=None), candidate]
            was_taken = chosen("cross", pair, thresholds) != "initial"
            is_taken = chosen("cross", pair, laxer) != "initial"
            assert is_taken or not was_taken
            num_more += is_taken and not was_taken
    assert num_more > 5


def test_what_agrees_and_is_plausible_is_taken_by_every_rule(
    draws: Callable[[], Iterator[tuple[list[Candidate], Thresholds]]],
) -> None:
    for known, thresholds in draws():
        alike = [replace(candidate, answer="a", cross_nll=0.0) for candidate in known]
        assert len({chosen(select, alike, thresholds) for select in SELECTS if select != "paper"}) == 1


def test_the_order_of_the_others_decides_ties_alone(
    draws: Callable[[], Iterator[tuple[list[Candidate], Thresholds]]],
) -> None:
    for known, thresholds in draws():
        different = [
            replace(candidate, ias=None if candidate.ias is None else candidate.ias + 0.001 * place)
            for place, candidate in enumerate(known)
        ]
        for select in ("safe", "agree", "ias"):
            turned = [different[0], *reversed(different[1:])]
            assert chosen(select, turned, thresholds) == chosen(select, different, thresholds)
