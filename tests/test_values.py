"""Values that cross rooms: what they compute, and that they are frozen."""

from __future__ import annotations

import doctest
import math
from dataclasses import FrozenInstanceError

import pytest

from vlinstruct import values
from vlinstruct.errors import TextError
from vlinstruct.values import (
    Answer,
    Choice,
    Failed,
    Optimization,
    ScoredInstruction,
    TokenCount,
    TokenScores,
    good,
    least_probability,
)


def scored(text: str) -> ScoredInstruction:
    return ScoredInstruction(text=text, ias=1.0, scores=TokenScores(tokens=("a",), token_nll=(1.0,)))


def test_the_docstrings_are_right() -> None:
    assert doctest.testmod(values).failed == 0


def test_a_good_outcome_is_itself_and_a_failed_one_raises_its_error() -> None:
    error = TextError("too long")
    assert good("text") == "text"
    with pytest.raises(TextError) as raised:
        good(Failed(error=error))
    assert raised.value is error


@pytest.mark.parametrize(
    ("room", "is_room_shared", "fits"),
    [(None, True, True), (6, True, True), (5, True, False), (5, False, True), (0, False, True), (-1, False, False)],
)
def test_a_row_has_room_for_its_prompt_and_what_is_written_after_it(
    room: int | None, is_room_shared: bool, fits: bool
) -> None:
    assert TokenCount(prompt=3, room=room, is_room_shared=is_room_shared).has_room(6) == fits


@pytest.mark.parametrize("nll", [(), (math.nan,), (1.0, math.inf), (math.inf, -math.inf)])
def test_a_mean_of_no_or_not_finite_scores_is_nan(nll: tuple[float, ...]) -> None:
    assert math.isnan(TokenScores(tokens=("a",) * len(nll), token_nll=nll).mean_nll)


@pytest.mark.parametrize("chosen", ["initial", "rewritten", "optimized"])
def test_the_instruction_is_the_chosen_one(chosen: str) -> None:
    versions = {role: scored(role) for role in ("initial", "rewritten", "optimized")}
    assert Optimization(**versions, chosen=chosen, reason="").instruction == chosen


def test_an_answer_is_as_certain_as_the_least_likely_of_its_first_tokens() -> None:
    first = (0.1, 0.5, *[0.2] * (values.NUM_JUDGED_TOKENS - 2))
    answer = Answer(text="a caption", instruction="describe it", token_nll=(*first, 9.0, 9.0))
    assert answer.certainty == pytest.approx(math.exp(-0.5))
    assert Answer(text="a", instruction="", token_nll=()).certainty == 0
    assert Answer(text="a", instruction="").certainty is None
    choices = tuple(Choice(text=text, probability=share, nll=1.0) for text, share in (("a", 0.4), ("b", 0.6)))
    assert Answer(text="b", instruction="", choices=choices).certainty == 0.6


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_score_that_is_not_finite_makes_no_certainty_wherever_it_stands(broken: float, place: int) -> None:
    nll = [0.1, 0.2, 0.3]
    nll[place] = broken
    assert least_probability(nll) == 0


@pytest.mark.parametrize("left_alone", [True, False])
def test_an_optimization_names_its_candidates_by_role(left_alone: bool) -> None:
    more = {} if left_alone else {"rewritten": scored("b"), "optimized": scored("c")}
    outcome = Optimization(initial=scored("a"), **more, variants=(scored("d"),), chosen="variant 1", reason="")
    assert outcome.left_alone == left_alone
    assert list(outcome.by_role()) == ["initial", *more, "variant 1"]
    assert (outcome.instruction, outcome.used) == ("d", outcome.variants[0])


def test_an_answer_prints_as_its_text_and_is_frozen() -> None:
    answer = Answer(text="red", instruction="what colour?")
    assert str(answer) == "red"
    with pytest.raises(FrozenInstanceError):
        answer.text = "blue"  # type: ignore[misc]
