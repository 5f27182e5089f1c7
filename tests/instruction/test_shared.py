"""One instruction for many images: algorithm 2 with means."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import fmean
from typing import get_args

import pytest

from vlinstruct.backend import Row
from vlinstruct.errors import ScoreError, TextError, UsageError
from vlinstruct.instruction import Templates, optimize, score
from vlinstruct.instruction.shared import optimize_for_all
from vlinstruct.settings import OptimizationSettings, Select
from vlinstruct.values import Optimization, TokenScores

from .conftest import FakeBackend

TEXT = "what is 2?"


def chunks(*sizes: int) -> Callable[[], Iterator[list[int]]]:
    """Images 0, 1, 2, ... in chunks of these sizes; counts how often they are asked for."""

    def give() -> Iterator[list[int]]:
        give.times += 1
        first = 0
        for size in sizes:
            yield list(range(first, first + size))
            first += size

    give.times = 0
    return give


def shared(model: FakeBackend, templates: Templates, *sizes: int, select: Select = "ias") -> Optimization:
    settings = OptimizationSettings(select=select)
    return optimize_for_all(model, chunks(*sizes), TEXT, templates=templates, settings=settings)


@pytest.mark.parametrize("select", get_args(Select))
@pytest.mark.parametrize("nats", [0.5, 7.0])
def test_one_image_is_plain_optimization(
    select: Select, nats: float, fake: type[FakeBackend], templates: Templates
) -> None:
    model = fake(answers={f"Tell me: {TEXT}": "red"}, cross={"red": nats}, ias={TEXT: 3.0, f"Tell me: {TEXT}": 1.0})
    settings = OptimizationSettings(select=select, when="always")
    (alone,) = optimize(model, [0], [TEXT], templates=templates, settings=settings)
    assert isinstance(alone, Optimization)
    outcome = shared(model, templates, 1, select=select)
    # Of many pictures there is no one answer that stands for all, and so no judgement to show.
    unjudged = {role: replace(scored, judgement=None) for role, scored in alone.by_role().items()}
    assert outcome == replace(alone, **unjudged)


def test_every_ias_is_the_mean_over_all_images(fake: type[FakeBackend], templates: Templates) -> None:
    model = fake()
    outcome = shared(model, templates, 3, 2)
    for scored in (outcome.initial, outcome.rewritten, outcome.optimized):
        each = score(model, range(5), [[scored.text]] * 5, templates)
        assert scored.ias == pytest.approx(fmean(row.ias for (row,) in each))


@pytest.mark.parametrize("sizes", [(6,), (1,) * 6, (4, 2), (2, 4)])
def test_chunks_change_nothing(sizes: tuple[int, ...], fake: type[FakeBackend], templates: Templates) -> None:
    assert shared(fake(), templates, *sizes) == shared(fake(), templates, 3, 3)


def test_it_is_rewritten_and_compared_once(fake: type[FakeBackend], templates: Templates) -> None:
    model = fake()
    shared(model, templates, 2, 2, 2)
    assert len(model.called("rewrite")) == len(model.called("compare")) == 1
    assert [len(call.images) for call in model.called("compare")] == [1]


def test_the_comparison_sees_the_image_nearest_the_mean(fake: type[FakeBackend], templates: Templates) -> None:
    model = fake()
    outcome = shared(model, templates, 4, 4)
    pair = (outcome.initial, outcome.rewritten)
    each = [score(model, range(8), [[scored.text]] * 8, templates) for scored in pair]
    distances = [
        sum(abs(row[image][0].ias - scored.ias) for row, scored in zip(each, pair, strict=True)) for image in range(8)
    ]
    (call,) = model.called("compare")
    assert call.images == (distances.index(min(distances)),)


def test_few_images_are_seen_once_and_many_are_not_kept(fake: type[FakeBackend], templates: Templates) -> None:
    settings = OptimizationSettings()
    for sizes, times in (((3, 3), 1), ((40, 40, 40), 2)):
        model = fake()
        give = chunks(*sizes)
        optimize_for_all(model, give, TEXT, templates=templates, settings=settings)
        assert give.times == times


def test_no_image_is_refused(fake: type[FakeBackend], templates: Templates) -> None:
    with pytest.raises(UsageError, match="at least one image"):
        shared(fake(), templates)


def test_without_a_finite_score_nothing_is_chosen(fake: type[FakeBackend], templates: Templates) -> None:
    model = fake(rewritten=lambda prompt: "other 2", ias={TEXT: math.nan, "other 2": math.nan})
    with pytest.raises(ScoreError):
        shared(model, templates, 2)


def test_an_instruction_that_is_not_finite_somewhere_is_left_out(fake: type[FakeBackend], templates: Templates) -> None:
    better = "What is 2 in it?"
    model = fake(rewritten=lambda prompt: better, ias={TEXT: math.nan, better: 1.0})
    outcome = shared(model, templates, 3)
    assert any("initial instruction has no finite IAS" in notice for notice in outcome.notices)
    assert outcome.chosen != "initial"


@pytest.mark.parametrize("too_long", ["There is the text", "Tell me: what", "Instruction: what", "Look at"])
def test_a_text_that_the_model_cannot_take_is_an_error(
    too_long: str, fake: type[FakeBackend], templates: Templates
) -> None:
    with pytest.raises(TextError):
        shared(fake(too_long=too_long), templates, 3)


@pytest.mark.parametrize(("max_cross_nll", "chosen"), [(1.0, "initial"), (1.2, "rewritten")])
@pytest.mark.parametrize("sizes", [(3,), (1, 2), (1, 1, 1)])
def test_the_cross_check_is_the_mean_over_the_pictures(
    sizes: tuple[int, ...], max_cross_nll: float, chosen: str, templates: Templates
) -> None:
    class Backend(FakeBackend):
        def scores(self, row: Row, target: str) -> TokenScores:
            if row.stage != "judge":
                return super().scores(row, target)
            (picture,) = row.seen
            return TokenScores(tokens=("a", "</s>"), token_nll=((0.2, 3.0, 0.1)[picture],) * 2)  # 1.1 in the mean

    model = Backend(ias={TEXT: 3.0, f"Tell me: {TEXT}": 1.0}, look=lambda image, prompt, text: text)
    settings = OptimizationSettings(select="cross", max_cross_nll=max_cross_nll)
    outcome = optimize_for_all(model, chunks(*sizes), TEXT, templates=templates, settings=settings)
    assert outcome.chosen == chosen


@pytest.mark.parametrize(("num_alike", "chosen"), [(3, "rewritten"), (2, "rewritten"), (1, "initial")])
def test_an_answer_agrees_where_most_pictures_do(num_alike: int, chosen: str, templates: Templates) -> None:
    def look(image: int, prompt: str, text: str) -> str:
        return "red" if prompt == TEXT or image < num_alike else "blue"

    model = FakeBackend(ias={TEXT: 3.0, f"Tell me: {TEXT}": 1.0}, look=look)
    settings = OptimizationSettings(select="agree")
    outcome = optimize_for_all(model, chunks(2, 1), TEXT, templates=templates, settings=settings)
    assert outcome.chosen == chosen
