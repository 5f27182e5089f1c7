"""A record is enough: what any rule would have chosen is worked out of it, and is what that rule chooses live."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from PIL import Image

from vlinstruct.evaluation.answering import answer
from vlinstruct.evaluation.benchmark import Item
from vlinstruct.evaluation.report.columns import role_of
from vlinstruct.instruction.judge import Answering
from vlinstruct.model import Model
from vlinstruct.settings import GenerationSettings, OptimizationSettings, Select, Thresholds
from vlinstruct.values import good

from .conftest import FakeBackend

THRESHOLDS = Thresholds(least_certainty=0.1, max_cross_nll=2.0, sure_above=0.6)
COLUMNS = {f"AIO {select}": OptimizationSettings(select=select) for select in get_args(Select)}
NUM_ITEMS = 60
GENERATIONS = {"greedy": GenerationSettings(max_new_tokens=9), "beams": GenerationSettings(num_beams=5)}


def drawn(*content: object) -> float:
    """A number between 0 and 1 that is always the same for this content."""
    return zlib.crc32("|".join(map(str, content)).encode()) / 2**32


class Backend(FakeBackend):
    """Anything may happen: blank answers, numbers that are not finite, texts that lose the question's number."""

    def see(self, media: Sequence[Any]) -> list[Any]:
        return [picture.getpixel((0, 0)) for picture in media]


def backend() -> Backend:
    def look(image: Any, prompt: str, text: str) -> str:
        return ["", "no", "yes", "red one", f"Look: {text}", "Look 7"][int(6 * drawn(image, prompt, text))]

    return Backend(
        rewritten=lambda prompt: prompt.split("?")[0][-13:] + ["? ", " 3?", "?"][int(3 * drawn(prompt))],
        look=look,
        nll=lambda prompt: (0.1, -math.log(drawn(prompt, "sure"))),
        ias={"Look 7": math.nan},
        cross={"red one": math.nan},
    )


def items(candidates: tuple[str, ...]) -> list[Item]:
    def item(number: int) -> Item:
        return Item(
            id=str(number),
            task="gqa",
            load_picture=lambda: Image.new("L", (1, 1), number),
            instructions={"canonical": f"is it {number % 7} or so?"},
            references=("yes",),
            candidates=candidates,
        )

    return [item(number) for number in range(NUM_ITEMS)]


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("candidates", [(), ("yes", "no", "maybe so")], ids=["written", "ranked"])
def test_every_rule_chooses_the_same_of_a_record_as_live(candidates: tuple[str, ...], generation: str) -> None:
    settings = GENERATIONS[generation]
    asked = items(candidates)
    model = Model(backend(), thresholds=THRESHOLDS)
    answered = answer(model, asked, "canonical", prefix="a", generation=settings)
    # As they stand in the file: JSON has no NaN and no infinity.
    records = [json.loads(json.dumps(record, allow_nan=False)) for record in answered.records]
    seen = list(map(good, model.see_each([item.load_picture() for item in asked])))
    texts = [item.instructions["canonical"] for item in asked]
    choices = [candidates] * NUM_ITEMS if candidates else None
    num_by_role: dict[str, int] = {}
    for column, optimization in COLUMNS.items():
        live = Model(backend(), thresholds=THRESHOLDS).ask_each(
            seen, texts, choices=choices, optimize=True, optimization=optimization, generation=settings
        )
        for record, outcome in zip(records, live, strict=True):
            given, role = good(outcome), role_of(record, column, THRESHOLDS)
            assert given.optimization is not None
            assert (column, role) == (column, given.optimization.chosen)
            assert record[role]["text"] == given.optimization.instruction
            # And the table scores the answer that a user gets.
            own = [choice.nll for choice in given.choices] if candidates else given.text
            assert record[role]["answer"] == own
            num_by_role[role] = num_by_role.get(role, 0) + 1
            if column == "AIO safe":
                assert record["chosen"] == role
                assert record["reason"] == given.optimization.reason
    assert min(num_by_role.values()) > 20
    assert set(num_by_role) == {"initial", "rewritten", "optimized"}


def test_rules_differ_on_these_records() -> None:
    """Else the law above would say little."""
    answered = answer(
        Model(backend(), thresholds=THRESHOLDS),
        items(()),
        "canonical",
        prefix="a",
        generation=GENERATIONS["greedy"],
    )
    chosen = {column: tuple(role_of(record, column, THRESHOLDS) for record in answered.records) for column in COLUMNS}
    assert len(set(chosen.values())) == len(COLUMNS)


def test_optimizing_alone_and_for_an_answer_choose_alike() -> None:
    model = Model(backend(), thresholds=THRESHOLDS)
    asked = items(())
    seen = list(map(good, model.see_each([item.load_picture() for item in asked])))
    texts = [item.instructions["canonical"] for item in asked]
    answers = model.ask_each(seen, texts, optimize=True, optimization=COLUMNS["AIO cross"])
    outcomes = model.optimize_each(seen, texts, answering=Answering(), optimization=COLUMNS["AIO cross"])
    assert [good(given).optimization for given in answers] == [good(outcome) for outcome in outcomes]
