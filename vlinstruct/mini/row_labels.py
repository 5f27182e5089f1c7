"""What the auxiliary losses want of one row: names, places and letters that lie behind its question."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlinstruct.mini.copying import Ids
from vlinstruct.mini.guidance import FOCUS_QUERIES, NUM_QUERY_TOKENS, READING_FAMILIES, Targets, attention_targets
from vlinstruct.mini.judging import IGNORED
from vlinstruct.mini.labels import PatchLabels, centre_cell, character_class
from vlinstruct.mini.phrasings import FAMILIES
from vlinstruct.mini.rows import VERDICTS, Row
from vlinstruct.mini.scene import COLOUR_NAMES, SHAPES
from vlinstruct.mini.words import MAX_LENGTH

FAMILY_NAMES = tuple(FAMILIES)
_LEAST_DISTANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class RowLabels:
    """Labels of one row, or of R rows stacked; IGNORED marks what a loss leaves out.

    Args:
        attention: (Q, 1 + G*G), where the queries should look (`guidance.py`).
        characters: (8,), classes of the printed characters, where they are asked for.
        verdict: (), position of the answer in VERDICTS.
        family: (), position in FAMILY_NAMES of what the Q-Former's text asks.
        shapes: (2,), positions in SHAPES of the things in focus.
        colours: (2,), their positions in COLOUR_NAMES.
        grid_rows: (2,), the patch rows of their centres.
        grid_columns: (2,), the patch columns.
        horizontal: (), 1 where the first thing in focus is to the right of the second, 0 where it is to the left.
        vertical: (), 1 where it is below, 0 where it is above.
    """

    attention: Targets
    characters: Ids
    verdict: Ids
    family: Ids
    shapes: Ids
    colours: Ids
    grid_rows: Ids
    grid_columns: Ids
    horizontal: Ids
    vertical: Ids


def row_labels(row: Row, patches: PatchLabels) -> RowLabels:
    """Labels a row.

    Args:
        row: a question.
        patches: labels of its picture, (G, G) and (G, 2 G).
    """
    grid = len(patches.shape)
    focus = row.fact.focus[: len(FOCUS_QUERIES)] if row.fact is not None else ()
    cells = [centre_cell(thing, row.scene.corners, grid) for thing in focus]
    return RowLabels(
        attention=_attention(row, patches),
        characters=_characters(row),
        verdict=np.array(VERDICTS.index(row.verdict) if row.verdict else IGNORED),
        family=np.array(FAMILY_NAMES.index(row.family) if row.family else IGNORED),
        shapes=_filled([SHAPES.index(thing.shape) for thing in focus]),
        colours=_filled([COLOUR_NAMES.index(thing.colour) for thing in focus]),
        grid_rows=_filled([row for row, _ in cells]),
        grid_columns=_filled([column for _, column in cells]),
        horizontal=_order([thing.x for thing in focus]),
        vertical=_order([thing.y for thing in focus]),
    )


def _order(places: list[float]) -> Ids:
    """Returns whether the first of two coordinates is clearly greater than the second."""
    if len(places) < len(FOCUS_QUERIES) or abs(places[0] - places[1]) < _LEAST_DISTANCE:
        return np.array(IGNORED)
    return np.array(int(places[0] > places[1]))


def _filled(labels: list[int]) -> Ids:
    return np.array(labels + [IGNORED] * (len(FOCUS_QUERIES) - len(labels)))


def _characters(row: Row) -> Ids:
    if row.fact is None or row.fact.family not in READING_FAMILIES or not row.scene.prints:
        return np.full(MAX_LENGTH, IGNORED)
    classes = [character_class(character) for character in row.scene.prints[0].text]
    return np.array(classes + [0] * (MAX_LENGTH - len(classes)))


def _attention(row: Row, patches: PatchLabels) -> Targets:
    if row.fact is None:
        return np.zeros((NUM_QUERY_TOKENS, 1 + patches.shape.size), np.float32)
    return attention_targets(row.fact, row.scene, patches.index)
