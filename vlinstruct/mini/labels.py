"""What lies under each patch of a picture: dense labels that help training, never used at inference.

Letters are often narrower than a patch, so characters are labelled twice per patch: in its left and in its right half.

Legend: G patches per side, N characters of a text. Class 0 always means "nothing".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vlinstruct.mini.draw import Size, canvas_size, layout
from vlinstruct.mini.perspective import Corners, moved
from vlinstruct.mini.scene import COLOUR_NAMES, COLOURS, SHAPES, Print, Scene, Thing
from vlinstruct.mini.words import MAX_LENGTH

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
CHARACTER_CLASSES = len(CHARACTERS) + 1
INDEX_CLASSES = MAX_LENGTH + 1
SHAPE_CLASSES = len(SHAPES) + 1
COLOUR_CLASSES = len(COLOURS) + 1
HALVES = 2

_LEAST_COVER = 0.35

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
