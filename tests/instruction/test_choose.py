"""Choosing among algorithm 2's three instructions."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from vlinstruct.errors import ScoreError
from vlinstruct.instruction.choose import RULES, Candidates, choose
from vlinstruct.settings import Select
from vlinstruct.values import ROLES


@pytest.fixture
def decide(templates, scored):
    def make(*candidates, select="safe"):
        by_role = {role: scored(text, ias) for role, (text, ias) in zip(ROLES, candidates, strict=True)}
        return choose(Candidates(**by_role, templates=templates), select)

    return make


def test_every_rule_can_be_selected_and_every_selection_has_a_rule():
    assert set(RULES) == set(get_args(Select))


@pytest.mark.parametrize(
    ("ias", "chosen"),
    [
        ((1.0, 2.0, 3.0), "initial"),
        ((2.0, 1.0, 3.0), "rewritten"),
        ((3.0, 2.0, 1.0), "optimized"),
        ((1.0, 1.0, 1.0), "initial"),
        ((2.0, 1.0, 1.0), "rewritten"),
        ((1.0, 2.0, 1.0), "initial"),
        ((math.nan, 2.0, 3.0), "rewritten"),
        ((3.0, math.nan, math.inf), "initial"),
        ((3.0, -math.inf, 2.0), "optimized"),
    ],
)
def test_safe_takes_the_lowest_finite_ias_and_the_earliest_of_equals(decide, ias, chosen):
    assert decide(("what is it", ias[0]), ("What is it?", ias[1]), ("What is this?", ias[2])).chosen == chosen


@pytest.mark.parametrize("optimized", [("c", 9.0), ("", 9.0), ("Instruction: 7", 9.0), ("c", math.nan)])
def test_paper_always_takes_the_optimized_instruction(decide, optimized):
    decision = decide(("a 3", 1.0), ("b", 2.0), optimized, select="paper")
    assert (decision.chosen, decision.reason) == ("optimized", "the paper always takes the optimized instruction")


@pytest.mark.parametrize(
    ("initial", "lossy", "fault"),
    [
        ("How many of 3?", "How many?", "loses the number 3"),
        ("What is 'stop'?", "What is stop?", "loses the quotation 'stop'"),
        ("(a) cat (b) dog", "(a) cat", "loses the option '(b) dog'"),
        ("(a) cat (b) dog", "(a) cat (b) dog (c) cow", "adds an option (c)"),
        ("what", " \u200b", "is blank"),
        ("what text", "There is the text what text", "repeats the prompt"),
        ("what", "what 5.0000.", "repeats the prompt"),
    ],
)
def test_safe_never_takes_a_candidate_that_fails_a_check(decide, initial, lossy, fault):
    decision = decide((initial, 5.0), (initial, 5.0), (lossy, 0.1))
    assert decision.chosen == "initial"
    assert decision.reason == (
        f"the initial instruction has the lowest IAS (5.0000) of those that can be used; the optimized one {fault}"
    )


def test_the_reason_names_the_score(decide):
    decision = decide(("what is it", 3.0), ("What is it?", 2.0), ("What is this?", 4.0))
    assert decision.reason == "the rewritten instruction has the lowest IAS (2.0000)"


def test_the_reason_stays_one_short_sentence(decide):
    many = " ".join(f"{number:050}" for number in range(100))
    decision = decide((many, 3.0), ("b", 2.0), ("c", 4.0))
    assert "more, the optimized one loses the number" in decision.reason
    assert len(decision.reason) < 400


def test_a_score_that_is_no_number_is_no_echo(decide):
    assert decide(("what is it", math.nan), ("What is it?", math.inf), ("What is this?", 1.0)).chosen == "optimized"


@pytest.mark.parametrize("select", ["safe", "paper"])
def test_nothing_finite_is_an_error(decide, not_finite, select):
    with pytest.raises(ScoreError):
        decide(("a", not_finite), ("b", not_finite), ("c", not_finite), select=select)


def test_safe_without_a_trustworthy_finite_candidate_is_an_error(decide):
    with pytest.raises(ScoreError):
        decide(("how many of 3", math.nan), ("how many", 1.0), ("many", 2.0))
