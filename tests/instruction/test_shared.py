"""One instruction for many images: algorithm 2 with means."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import fmean

import pytest

from vlinstruct.errors import ScoreError, UsageError
from vlinstruct.instruction import Templates, optimize, score
from vlinstruct.instruction.shared import optimize_shared
from vlinstruct.settings import OptimizationSettings
from vlinstruct.values import Optimization, Percept

from .conftest import FakeModel

TEXT = "what is 2?"


def chunks(model: FakeModel, *sizes: int) -> Callable[[], Iterator[Percept]]:
    """Images 0, 1, 2, ... in percepts of these sizes; counts how often they are asked for."""

    def give() -> Iterator[Percept]:
        give.times += 1
        first = 0
        for size in sizes:
            yield model.encode(list(range(first, first + size)))
            first += size

    give.times = 0
    return give


def shared(model: FakeModel, templates: Templates, *sizes: int, select: str = "safe") -> Optimization:
    config = OptimizationSettings(select=select)
    return optimize_shared(model, chunks(model, *sizes), TEXT, templates=templates, config=config)


def test_one_image_is_plain_optimization(fake: type[FakeModel], templates: Templates) -> None:
    model = fake()
    (alone,) = optimize(model, model.encode([0]), [TEXT], templates=templates, config=OptimizationSettings())
    assert shared(model, templates, 1) == alone


def test_every_ias_is_the_mean_over_all_images(fake: type[FakeModel], templates: Templates) -> None:
    model = fake()
    outcome = shared(model, templates, 3, 2)
    for one in (outcome.initial, outcome.rewritten, outcome.optimized):
        each = score(model, model.encode(list(range(5))), [one.text] * 5, templates)
        assert one.ias == pytest.approx(fmean(row.ias for row in each))


@pytest.mark.parametrize("sizes", [(6,), (1,) * 6, (4, 2), (2, 4)])
def test_chunks_change_nothing(sizes: tuple[int, ...], fake: type[FakeModel], templates: Templates) -> None:
    assert shared(fake(), templates, *sizes) == shared(fake(), templates, 3, 3)


def test_it_is_rewritten_and_compared_once(fake: type[FakeModel], templates: Templates) -> None:
    model = fake()
    shared(model, templates, 2, 2, 2)
    assert len(model.called("generate_text")) == len(model.called("generate")) == 1
    assert [len(call.images) for call in model.called("generate")] == [1]


def test_the_comparison_sees_the_image_nearest_the_mean(fake: type[FakeModel], templates: Templates) -> None:
    model = fake()
    outcome = shared(model, templates, 4, 4)
    pair = (outcome.initial, outcome.rewritten)
    each = [score(model, model.encode(list(range(8))), [one.text] * 8, templates) for one in pair]
    distances = [sum(abs(row[image].ias - one.ias) for row, one in zip(each, pair, strict=True)) for image in range(8)]
    (call,) = model.called("generate")
    assert call.images == (distances.index(min(distances)),)


def test_few_images_are_encoded_once_and_many_are_not_kept(fake: type[FakeModel], templates: Templates) -> None:
    config = OptimizationSettings()
    for sizes, times in (((3, 3), 1), ((40, 40, 40), 2)):
        model = fake()
        give = chunks(model, *sizes)
        optimize_shared(model, give, TEXT, templates=templates, config=config)
        assert give.times == times


def test_no_image_is_refused(fake: type[FakeModel], templates: Templates) -> None:
    with pytest.raises(UsageError, match="at least one image"):
        shared(fake(), templates)


def test_without_a_finite_score_nothing_is_chosen(fake: type[FakeModel], templates: Templates) -> None:
    model = fake(write=lambda prompt: "other 2", ias={TEXT: math.nan, "other 2": math.nan})
    with pytest.raises(ScoreError):
        shared(model, templates, 2)


def test_an_instruction_that_is_not_finite_somewhere_is_left_out(fake: type[FakeModel], templates: Templates) -> None:
    model = fake(write=lambda prompt: "other 2", ias={TEXT: math.nan, "other 2": 1.0})
    outcome = shared(model, templates, 3)
    assert any("initial instruction has no finite IAS" in notice for notice in outcome.notices)
    assert outcome.chosen != "initial"
