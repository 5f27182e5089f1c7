"""A rewriting that the model was not sure of is not used, wherever its text stands; off, nothing is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from vlinstruct.errors import UsageError
from vlinstruct.instruction import optimize
from vlinstruct.settings import OptimizationSettings
from vlinstruct.values import TokenScores

from .conftest import AFTER, BEFORE, FakeModel

ASKED = ["which text is here?", "what colour is it?"]
SURE = OptimizationSettings(least_certainty=0.8)


@dataclass(kw_only=True)
class SureModel(FakeModel):
    """Tells how sure it was: of every rewriting's least likely token, by the initial instruction."""

    certainties: dict[str, float] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def text_nll(self, prompts: Sequence[str], targets: Sequence[str]) -> list[TokenScores]:
        self.asked.extend(targets)
        initial = [prompt.removeprefix(BEFORE).partition(AFTER)[0] for prompt in prompts]
        least = [-math.log(self.certainties.get(text, 1.0)) for text in initial]
        return [TokenScores(tokens=("a", "b"), token_nll=(0.0, one)) for one in least]


def model(**more: object) -> SureModel:
    """Rewritten instructions have the lowest IAS, and comparing brings them forth again."""
    scores = {**dict.fromkeys(ASKED, 3.0), **{f"Tell me: {text}": 1.0 for text in ASKED}}
    return SureModel(ias=scores, look=lambda image, prompt, text: f"Tell me: {text}", **more)  # type: ignore[arg-type]


def outcomes(ours: FakeModel, config: OptimizationSettings, templates: object) -> list[object]:
    percept = ours.encode([0, 1])
    return list(optimize(ours, percept, ASKED, templates=templates, config=config))  # type: ignore[arg-type]


def test_an_uncertain_rewriting_is_refused_with_its_certainty(templates) -> None:
    first, second = outcomes(model(certainties={ASKED[0]: 0.555}), SURE, templates)
    assert (first.chosen, second.chosen) == ("initial", "rewritten")
    assert first.reason.count("was written with a certainty of 0.56, below 0.8") == 2  # rewritten, and compared again
    assert first.instruction == ASKED[0]


@pytest.mark.parametrize(("certainty", "chosen"), [(0.79, "initial"), (0.8, "rewritten"), (1.0, "rewritten")])
def test_as_sure_as_asked_for_is_enough(certainty: float, chosen: str, templates) -> None:
    (first, _) = outcomes(model(certainties={ASKED[0]: certainty + 1e-9}), SURE, templates)
    assert first.chosen == chosen


def test_the_paper_takes_the_optimized_one_all_the_same(templates) -> None:
    config = OptimizationSettings(select="paper", least_certainty=0.8)
    (first, _) = outcomes(model(certainties={ASKED[0]: 0.1}), config, templates)
    assert first.chosen == "optimized"


@pytest.mark.parametrize("least", [None, 0.0])
def test_off_nothing_is_asked(least: float | None, templates) -> None:
    ours = model(certainties={ASKED[0]: 0.1})
    (first, _) = outcomes(ours, OptimizationSettings(least_certainty=least), templates)
    assert (first.chosen, ours.asked) == ("rewritten", [])


def test_a_certainty_is_computed_once(templates) -> None:
    ours, known = model(), {}
    for _ in range(2):
        optimize(ours, ours.encode([0, 1]), ASKED, templates=templates, config=SURE, known=known)
    assert ours.asked == [f"Tell me: {text}" for text in ASKED]


def test_a_model_that_does_not_tell_is_refused(fake, templates) -> None:
    with pytest.raises(UsageError, match="needs a model with text_nll"):
        outcomes(fake(), SURE, templates)


@pytest.mark.parametrize("least", [-0.1, 1.1, math.nan])
def test_a_certainty_is_a_probability(least: float) -> None:
    with pytest.raises(UsageError, match="least_certainty must be 0 to 1"):
        OptimizationSettings(least_certainty=least)
