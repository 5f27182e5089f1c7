import random

import pytest

from pretrain_mini.rows import (
    VERDICTS,
    Pictured,
    asked_rows,
    compared_rows,
    mismatched_fact,
    names_only_what_is_there,
    scored_rows,
)
from vlinstruct.instruction.templates import Templates
from vlinstruct.mini.questions import facts
from vlinstruct.mini.world import sample_scene

TEMPLATES = Templates.default()


@pytest.fixture(scope="module")
def pictures() -> list[Pictured]:
    rng = random.Random(0)
    scenes = [sample_scene(seed, fonts=("pillow",)) for seed in range(30)]
    return [Pictured(scene=scene, facts=facts(scene, rng)) for scene in scenes]


def test_every_picture_is_asked_about_as_often(pictures: list[Pictured]) -> None:
    rows = asked_rows(pictures, 90, random.Random(1))
    assert [row.picture for row in rows] == [*range(30)] * 3
    assert all(row.scene is pictures[row.picture].scene for row in rows)


def test_a_verdict_is_the_answer(pictures: list[Pictured]) -> None:
    rows = asked_rows(pictures, 90, random.Random(1))
    assert all(row.verdict == (row.pair.target if row.pair.target in VERDICTS else None) for row in rows)
    assert sum(row.verdict is not None for row in rows) > 20


def test_mismatched_questions_name_what_is_not_there(pictures: list[Pictured]) -> None:
    rng = random.Random(2)
    for picture in pictures:
        assert not names_only_what_is_there(mismatched_fact(picture, rng), picture.scene)


def test_the_q_former_is_to_be_trusted_only_where_its_text_fits(pictures: list[Pictured]) -> None:
    scored = [row for seed in range(10) for row in scored_rows(TEMPLATES, pictures, 10, random.Random(seed))]
    rows = [row for row in scored if row.fits is not False]
    assert {row.verdict for row in rows} == {"yes", "no", None}
    assert len(rows) == len(scored) / 2
    for row in rows:
        assert row.pair.prompt == TEMPLATES.score_prompt()
        assert (row.qformer_text == row.pair.target) == (row.verdict == "yes")
        assert (row.qformer_text == "") == (row.verdict is None)
        assert (row.fits is True) == (row.verdict == "yes")
    for row in (row for row in scored if row.fits is False):
        assert row.qformer_text == row.pair.target


def test_comparisons_stand_in_their_template(pictures: list[Pictured]) -> None:
    rows = compared_rows(TEMPLATES, pictures, 10, random.Random(3))
    assert all(row.pair.prompt.count("Score: ") == 2 for row in rows)
