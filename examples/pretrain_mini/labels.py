"""What training knows of each picture and each question: dense labels that help it, never used at inference.

Of a picture: what lies under each patch. Letters are often narrower than a patch, so characters are labelled twice per
patch: in its left and in its right half.

Of a question: the names, places and letters behind it, and where the Q-Former's queries should look. Query i reads
character i of the printed text; the next queries find the things the question names, in its order; the last one looks
at all of them at once, and at the class token, so that their number and their absence can be told from how its
attention is shared out.

Legend: G patches per side, N characters of a text, R rows, Q queries, P positions (class token + G*G patches). Class 0
always means "nothing".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pretrain_mini.rows import FOREIGN, VERDICTS, Row
from vlinstruct.mini.draw import Size, canvas_size, layout, moved
from vlinstruct.mini.phrasings import families
from vlinstruct.mini.questions import Fact
from vlinstruct.mini.scene import COLOUR_NAMES, COLOURS, SHAPES, Corners, Print, Scene, Thing
from vlinstruct.mini.words import MAX_LENGTH

Ids = NDArray[np.int64]
Targets = NDArray[np.float32]

# Marks what a loss leaves out.
IGNORED = -100

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
CHARACTER_CLASSES = len(CHARACTERS) + 1
INDEX_CLASSES = MAX_LENGTH + 1
SHAPE_CLASSES = len(SHAPES) + 1
COLOUR_CLASSES = len(COLOURS) + 1
HALVES = 2
_LEAST_COVER = 0.35

FAMILY_NAMES = (*families(), FOREIGN)
READING_FAMILIES = ("reading", "number", "written", "ocr", "meme", "caption", "description")
# Families that are answered by what is not there, too.
_ABSENCE_FAMILIES = ("count", "exist", "answerable")
_LEAST_DISTANCE = 0.05

FOCUS_QUERIES = (MAX_LENGTH, MAX_LENGTH + 1)
NUM_QUERY_TOKENS = MAX_LENGTH + 4
FAMILY_QUERY = NUM_QUERY_TOKENS - 2
VERDICT_QUERY = NUM_QUERY_TOKENS - 1
# The class token's share beside one of each thing: far from equal, so that three things and four are told apart.
_CLASS_SHARE = 3

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class PatchLabels:
    """Classes of the patches.

    Args:
        character: (G, 2 G), 1 + position in CHARACTERS, whatever the letter case.
        index: (G, 2 G), 1 + index of the character in its word.
        shape: (G, G), 1 + position in SHAPES.
        centre: (G, G), the shape where a thing's centre lies in the patch: one patch per thing, to count by.
        colour: (G, G), 1 + position in COLOURS, of the thing, the letter or else the background.
    """

    character: NDArray[np.int64]
    index: NDArray[np.int64]
    shape: NDArray[np.int64]
    centre: NDArray[np.int64]
    colour: NDArray[np.int64]


def character_class(character: str) -> int:
    """Returns the class of a letter or digit; a capital has its small letter's.

    >>> character_class("A"), character_class("0")
    (1, 27)
    """
    return CHARACTERS.index(character.lower()) + 1


def _moved_box(box: Box, corners: Corners | None) -> Box:
    """Returns the box between the middles of a box's edges, where perspective has moved them."""
    if corners is None:
        return box
    left, top, right, bottom = box
    x, y = (left + right) / 2, (top + bottom) / 2
    ends = moved(np.array([[left, y], [x, top], [right, y], [x, bottom]]), corners)
    return float(ends[0, 0]), float(ends[1, 1]), float(ends[2, 0]), float(ends[3, 1])


def character_boxes(text: Print, size: Size, corners: Corners | None = None) -> list[Box]:
    """Returns each character's box (left, top, right, bottom) as fractions of the picture."""
    size = canvas_size(size)
    place = layout(text, size)
    top, bottom = (place.baseline - place.capital) / size[1], place.baseline / size[1]
    lefts = [(place.left + edge) / size[0] for edge in place.edges]
    return [_moved_box((left, top, right, bottom), corners) for left, right in pairwise(lefts)]


def thing_box(thing: Thing, size: Size, corners: Corners | None = None) -> Box:
    """Returns a thing's box (left, top, right, bottom) as fractions of the picture."""
    half_x, half_y = (0.45 * thing.size * min(size) / side for side in size)
    return _moved_box((thing.x - half_x, thing.y - half_y, thing.x + half_x, thing.y + half_y), corners)


def centre_cell(thing: Thing, corners: Corners | None, grid: int) -> tuple[int, int]:
    """Returns row and column of the patch in which a thing's centre lies."""
    x, y = moved(np.array([thing.x, thing.y]), corners)
    return min(grid - 1, max(0, int(y * grid))), min(grid - 1, max(0, int(x * grid)))


def _overlaps(lows: NDArray[np.float64], highs: NDArray[np.float64], grid: int) -> NDArray[np.float64]:
    """(N,) intervals -> (N, grid): how much of each cell an interval covers, as a fraction of a cell."""
    cells = np.arange(grid)
    return np.clip(np.minimum(highs[:, None] * grid, cells + 1) - np.maximum(lows[:, None] * grid, cells), 0, None)


def _label_thing(labels: PatchLabels, thing: Thing, size: Size, corners: Corners | None) -> None:
    grid = len(labels.shape)
    left, top, right, bottom = np.array([thing_box(thing, size, corners)]).T
    inside = np.outer(_overlaps(top, bottom, grid), _overlaps(left, right, grid)) >= _LEAST_COVER
    labels.shape[inside] = SHAPES.index(thing.shape) + 1
    labels.centre[centre_cell(thing, corners, grid)] = SHAPES.index(thing.shape) + 1
    labels.colour[inside] = COLOUR_NAMES.index(thing.colour) + 1


def _label_print(labels: PatchLabels, text: Print, size: Size, corners: Corners | None) -> None:
    grid = len(labels.shape)
    lefts, tops, rights, bottoms = np.array(character_boxes(text, size, corners)).T
    heights = np.minimum(1.0, (bottoms - tops) * grid)
    rows = _overlaps(tops, bottoms, grid) >= _LEAST_COVER * heights[:, None]
    cover = rows[:, :, None] * _overlaps(lefts, rights, HALVES * grid)[:, None, :]
    inside, winner = cover.sum(0) >= _LEAST_COVER, cover.argmax(0)
    classes = np.array([character_class(character) for character in text.text])
    labels.character[inside] = classes[winner[inside]]
    labels.index[inside] = winner[inside] + 1
    labels.colour[inside.reshape(grid, grid, HALVES).all(-1)] = COLOUR_NAMES.index(text.colour) + 1


def patch_labels(scene: Scene, size: Size, grid: int = 12) -> PatchLabels:
    """Labels every patch of a scene as `draw(scene, size)` draws it.

    Args:
        scene: what was drawn.
        size: width and height it was drawn at, px.
        grid: G, patches per side.
    """
    labels = PatchLabels(
        character=np.zeros((grid, HALVES * grid), np.int64),
        index=np.zeros((grid, HALVES * grid), np.int64),
        shape=np.zeros((grid, grid), np.int64),
        centre=np.zeros((grid, grid), np.int64),
        colour=np.full((grid, grid), COLOUR_NAMES.index(scene.background) + 1),
    )
    for thing in scene.things:
        _label_thing(labels, thing, size, scene.corners)
    for text in scene.prints:
        _label_print(labels, text, size, scene.corners)
    return labels


def attention_targets(fact: Fact, scene: Scene, index: NDArray[np.int64]) -> Targets:
    """Returns the wanted distribution of every query's attention, (Q, P); a row of zeros wants nothing.

    Args:
        fact: what is asked.
        scene: about which picture.
        index: (G, 2 G), the picture's labels of characters' indices.
    """
    grid = len(index)
    targets = np.zeros((NUM_QUERY_TOKENS, 1 + grid * grid), np.float32)
    if fact.family in READING_FAMILIES and scene.prints:
        _look_at_characters(targets, index)
    places = (centre_cell(thing, scene.corners, grid) for thing in (*fact.focus, *fact.counted))
    cells = [1 + grid * row + column for row, column in places]
    for query, cell in zip(FOCUS_QUERIES, cells[: len(fact.focus)], strict=False):
        targets[query, cell] = 1
    if cells or fact.family in _ABSENCE_FAMILIES:
        targets[VERDICT_QUERY, 0] = _CLASS_SHARE / (_CLASS_SHARE + len(cells))
        targets[VERDICT_QUERY, cells] = 1 / (_CLASS_SHARE + len(cells))
    return targets


def _look_at_characters(targets: Targets, index: NDArray[np.int64]) -> None:
    grid = len(index)
    halves = index.reshape(grid * grid, HALVES)
    for place in range(MAX_LENGTH):
        patches = (halves == place + 1).any(axis=1)
        targets[place, 1:] = patches / max(1, patches.sum())


@dataclass(frozen=True, kw_only=True)
class RowLabels:
    """Labels of one row, or of R rows stacked; IGNORED marks what a loss leaves out.

    Args:
        attention: (Q, 1 + G*G), where the queries should look (`attention_targets`).
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
