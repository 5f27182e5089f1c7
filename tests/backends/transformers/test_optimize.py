"""Algorithm 2 with every saving of ours equals the same steps with every call alone, computed from the start."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from picture_fixtures import make_picture

from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings, OptimizationSettings, Select
from vlinstruct.values import Answer, Failed, Optimization, good

from .conftest import Pair
from .tiny_families import FAMILIES

QUICK = ("qwen3_vl", "gemma3", "blip2_t5")
PICTURES = (make_picture(80, 60, seed=1), make_picture(200, 60, seed=2))
INSTRUCTIONS = ("How many red dogs are there?", "Describe the image in one sentence, please.")

families = pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[
                *([] if name in QUICK else [pytest.mark.slow]),
                pytest.mark.skipif(family.is_broken, reason="this transformers cannot run it"),
            ],
        )
        for name, family in FAMILIES.items()
        if family.is_supported
    ],
)


def assert_same_outcome(ours: Optimization, theirs: Optimization, tolerance: float) -> None:
    """Checks everything up to the comparison, and what comes of it where both models read the same prompt there."""
    are_shown_alike = all(
        # Four decimals of a score are in that prompt: last bits must not decide over the fourth.
        abs(scored.ias * 1e4 % 1 - 0.5) > 0.05
        for scored in (theirs.initial, theirs.rewritten)
        if scored is not None
    )
    roles = list(theirs.by_role()) if are_shown_alike else ["initial", "rewritten"]
    for role in roles:
        scored, expected = ours.by_role()[role], theirs.by_role()[role]
        assert scored.text == expected.text
        assert scored.ias == pytest.approx(expected.ias, abs=tolerance)
        assert scored.written_certainty == pytest.approx(expected.written_certainty, abs=tolerance)
    if are_shown_alike:
        assert ours.chosen == theirs.chosen
        assert ours.notices == theirs.notices
        assert [scored.faults for scored in ours.by_role().values()] == [
            scored.faults for scored in theirs.by_role().values()
        ]


@pytest.mark.parametrize("select", ["paper", "safe"])
@families
def test_an_outcome_is_that_of_the_naive_steps(name: str, select: Select, pair_of: Callable[[str], Pair]) -> None:
    pair = pair_of(name)
    naive = Model(pair.theirs, thresholds=pair.ours.thresholds)
    settings = OptimizationSettings(select=select, when="always", max_new_tokens=6)
    generation = GenerationSettings(max_new_tokens=5)

    def answers(model: Model) -> list[Answer | Failed]:
        seen = [good(outcome) for outcome in model.see_each(PICTURES)]
        return model.ask_each(seen, INSTRUCTIONS, optimize=True, optimization=settings, generation=generation)

    for ours, theirs in zip(answers(pair.ours), answers(naive), strict=True):
        our_answer, their_answer = good(ours), good(theirs)
        assert our_answer.optimization is not None
        assert their_answer.optimization is not None
        assert_same_outcome(our_answer.optimization, their_answer.optimization, pair.tolerance)
        if our_answer.instruction == their_answer.instruction:
            assert our_answer.text == their_answer.text
            assert our_answer.token_nll == pytest.approx(their_answer.token_nll, abs=pair.tolerance)


@families
def test_choices_are_ranked_as_one_by_one(name: str, pair_of: Callable[[str], Pair]) -> None:
    pair = pair_of(name)
    offered = ["yes", "no", "a red dog on a sign"]
    ours = pair.ours.ask(PICTURES[0], INSTRUCTIONS[0], choices=offered)
    theirs = Model(pair.theirs).ask(PICTURES[0], INSTRUCTIONS[0], choices=offered)
    assert ours.text == theirs.text
    for our_choice, their_choice in zip(ours.choices, theirs.choices, strict=True):
        assert our_choice.nll == pytest.approx(their_choice.nll, abs=pair.tolerance)
