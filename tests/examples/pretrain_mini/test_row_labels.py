import random

import numpy as np
import pytest

from pretrain_mini.labels import FAMILY_NAMES, IGNORED, RowLabels, centre_cell, patch_labels, row_labels
from pretrain_mini.rows import VERDICTS, Pictured, Row, asked_rows
from vlinstruct.mini.draw import DEFAULT_SIZE
from vlinstruct.mini.questions import facts
from vlinstruct.mini.scene import COLOUR_NAMES, SHAPES
from vlinstruct.mini.world import sample_scene

GRID = 10


@pytest.fixture(scope="module")
def labelled() -> list[tuple[Row, RowLabels]]:
    rng = random.Random(0)
    scenes = [sample_scene(seed, fonts=("pillow",)) for seed in range(40)]
    rows = asked_rows([Pictured(scene=scene, facts=facts(scene, rng)) for scene in scenes], 200, rng)
    return [(row, row_labels(row, patch_labels(row.scene, DEFAULT_SIZE, GRID))) for row in rows]


def test_things_in_focus_are_named_and_placed_in_the_questions_order(labelled: list[tuple[Row, RowLabels]]) -> None:
    checked = 0
    for row, labels in labelled:
        if row.fact is None:  # no question that a picture answers
            continue
        for i, thing in enumerate(row.fact.focus[:2]):
            assert SHAPES[labels.shapes[i]] == thing.shape
            assert COLOUR_NAMES[labels.colours[i]] == thing.colour
            assert (labels.grid_rows[i], labels.grid_columns[i]) == centre_cell(thing, row.scene.corners, GRID)
            checked += 1
        assert (labels.shapes[len(row.fact.focus) :] == IGNORED).all()
    assert checked > 40


def test_the_order_of_two_things_is_that_of_their_places(labelled: list[tuple[Row, RowLabels]]) -> None:
    checked = 0
    for row, labels in labelled:
        for label, axis in ((labels.horizontal, "x"), (labels.vertical, "y")):
            if label != IGNORED:
                assert row.fact is not None
                first, second = (getattr(thing, axis) for thing in row.fact.focus[:2])
                assert label == (first > second)
                checked += 1
    assert checked > 10


def test_families_and_verdicts_are_the_rows(labelled: list[tuple[Row, RowLabels]]) -> None:
    for row, labels in labelled:
        assert FAMILY_NAMES[labels.family] == row.family
        assert labels.verdict == (VERDICTS.index(row.verdict) if row.verdict else IGNORED)


def test_letters_are_wanted_only_where_they_are_asked_for(labelled: list[tuple[Row, RowLabels]]) -> None:
    lengths = {
        int((labels.characters > 0).sum()) - len(row.pair.target) for row, labels in labelled if row.family == "reading"
    }
    assert lengths == {0}
    assert all((labels.characters == IGNORED).all() for row, labels in labelled if row.family == "count")
    assert all(np.isin(labels.attention.sum(-1).round(4), (0, 1)).all() for _, labels in labelled)
