"""Values that cross rooms: what they compute, and that they are frozen."""

from __future__ import annotations

import doctest
import math
from dataclasses import FrozenInstanceError

import pytest
import torch

from vlinstruct import values
from vlinstruct.values import Answer, Optimization, Percept, ScoredInstruction, TokenScores


def scored(text: str) -> ScoredInstruction:
    return ScoredInstruction(text=text, ias=1.0, scores=TokenScores(tokens=("a",), token_nll=(1.0,)))


def test_the_docstrings_are_right() -> None:
    assert doctest.testmod(values).failed == 0


def test_a_percept_selects_rows_in_any_order() -> None:
    percept = Percept(image_embeds=torch.arange(3).view(3, 1, 1))
    assert percept.select([2, 0, 2]).image_embeds.flatten().tolist() == [2, 0, 2]
    assert percept.select([0, 1, 2]) is percept
    assert len(percept.select([])) == 0


@pytest.mark.parametrize("nll", [(), (math.nan,), (1.0, math.inf), (math.inf, -math.inf)])
def test_a_mean_of_no_or_not_finite_scores_is_nan(nll: tuple[float, ...]) -> None:
    assert math.isnan(TokenScores(tokens=("a",) * len(nll), token_nll=nll).mean_nll)


@pytest.mark.parametrize("chosen", ["initial", "rewritten", "optimized"])
def test_the_instruction_is_the_chosen_one(chosen: values.Role) -> None:
    versions = {role: scored(role) for role in ("initial", "rewritten", "optimized")}
    assert Optimization(**versions, chosen=chosen, reason="").instruction == chosen


def test_an_answer_prints_as_its_text_and_is_frozen() -> None:
    answer = Answer(text="red", instruction="what colour?")
    assert str(answer) == "red"
    with pytest.raises(FrozenInstanceError):
        answer.text = "blue"  # type: ignore[misc]
