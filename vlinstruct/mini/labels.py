"""What lies under each patch of a picture: dense labels that help training, never used at inference.

Legend: G patches per side. Class 0 always means "nothing".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vlinstruct.mini.draw import Size, layout
from vlinstruct.mini.scene import COLOURS, SHAPES, Print, Scene, Thing
from vlinstruct.mini.words import MAX_LENGTH

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
CHARACTER_CLASSES = len(CHARACTERS) + 1
INDEX_CLASSES = MAX_LENGTH + 1
SHAPE_CLASSES = len(SHAPES) + 1
COLOUR_CLASSES = len(COLOURS) + 1

_COLOUR_NAMES = tuple(COLOURS)
_LEAST_COVER = 0.35

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class PatchLabels:
    """Classes of the patches, each (G, G).

    Args:
        character: 1 + position in CHARACTERS, whatever the letter case.
        index: 1 + index of the character in its word.
        shape: 1 + position in SHAPES.
        colour: 1 + position in COLOURS, of the thing, the letter or else the background.
    """

    character: NDArray[np.int64]
    index: NDArray[np.int64]
    shape: NDArray[np.int64]
    colour: NDArray[np.int64]


def character_class(character: str) -> int:
    """Returns the class of a letter or digit; a capital has its small letter's.

    >>> character_class("A"), character_class("0")
    (1, 27)
    """
    return CHARACTERS.index(character.lower()) + 1


def character_boxes(text: Print, size: Size) -> list[Box]:
    """Returns each character's box (left, top, right, bottom) as fractions of the picture."""
    place = layout(text, size)
    top, bottom = (place.baseline - place.capital) / size[1], place.baseline / size[1]
    lefts = [(place.left + edge) / size[0] for edge in place.edges]
    return [(left, top, right, bottom) for left, right in pairwise(lefts)]


def thing_box(thing: Thing, size: Size) -> Box:
    """Returns a thing's box (left, top, right, bottom) as fractions of the picture."""
    half_x, half_y = (0.45 * thing.size * min(size) / side for side in size)
    return thing.x - half_x, thing.y - half_y, thing.x + half_x, thing.y + half_y


def _overlap(low: float, high: float, grid: int) -> NDArray[np.float64]:
    """Returns how much of each of the G cells the interval covers, as a fraction of a cell."""
    cells = np.arange(grid)
    return np.clip(np.minimum(high * grid, cells + 1) - np.maximum(low * grid, cells), 0, None)


def _label_print(labels: PatchLabels, text: Print, size: Size, grid: int) -> None:
    boxes = character_boxes(text, size)
    columns = np.stack([_overlap(left, right, grid) for left, _, right, _ in boxes])
    rows = _overlap(boxes[0][1], boxes[0][3], grid)
    height = (boxes[0][3] - boxes[0][1]) * grid
    inside = np.outer(rows >= _LEAST_COVER * min(1.0, height), columns.sum(0) >= _LEAST_COVER)
    winner = np.broadcast_to(columns.argmax(0), (grid, grid))
    classes = np.array([character_class(character) for character in text.text])
    labels.character[inside] = classes[winner[inside]]
    labels.index[inside] = winner[inside] + 1
    labels.colour[inside] = _COLOUR_NAMES.index(text.colour) + 1


def patch_labels(scene: Scene, size: Size, grid: int = 8) -> PatchLabels:
    """Labels every patch of a scene as `draw(scene, size)` draws it.

    Args:
        scene: what was drawn.
        size: width and height it was drawn at, px.
        grid: G, patches per side.
    """
    character, index, shape = (np.zeros((grid, grid), np.int64) for _ in range(3))
    colour = np.full((grid, grid), _COLOUR_NAMES.index(scene.background) + 1)
    labels = PatchLabels(character=character, index=index, shape=shape, colour=colour)
    for thing in scene.things:
        left, top, right, bottom = thing_box(thing, size)
        inside = np.outer(_overlap(top, bottom, grid), _overlap(left, right, grid)) >= _LEAST_COVER
        shape[inside] = SHAPES.index(thing.shape) + 1
        colour[inside] = _COLOUR_NAMES.index(thing.colour) + 1
    for text in scene.prints:
        _label_print(labels, text, size, grid)
    return labels
