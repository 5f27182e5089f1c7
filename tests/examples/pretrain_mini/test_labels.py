import numpy as np
import pytest

from pretrain_mini.labels import HALVES, centre_cell, character_boxes, character_class, patch_labels
from vlinstruct.mini.draw import CORNERS, draw
from vlinstruct.mini.scene import COLOURS, SHAPES, Corners, Print, Scene, Thing

BLACK = COLOURS["black"]
WORD = Print(text="MAPS", colour="black", rgb=BLACK, font="pillow", x=0.5, y=0.4, height=0.22)
GRID = 10
SIZES = [(120, 120), (160, 120)]
TILTED: Corners = ((0.05, 0.02), (0.97, 0.06), (0.94, 0.99), (0.01, 0.93))


def _scene(**content: object) -> Scene:
    return Scene(background="white", background_rgb=(255, 255, 255), **content)  # type: ignore[arg-type]


@pytest.mark.parametrize("corners", [None, TILTED])
@pytest.mark.parametrize("size", SIZES)
def test_all_ink_of_a_word_lies_in_its_characters_boxes(size: tuple[int, int], corners: Corners | None) -> None:
    ink = np.asarray(draw(_scene(prints=(WORD,), corners=corners), size).convert("L")) < 128
    boxes = np.array(character_boxes(WORD, size, corners)) * np.array([*size, *size])
    inside = np.zeros_like(ink)
    for left, top, right, bottom in boxes:
        box = np.s_[round(top) - 1 : round(bottom) + 2, round(left) - 1 : round(right) + 2]
        assert ink[box].any()
        inside[box] = True
    assert not (ink & ~inside).any()


@pytest.mark.parametrize("size", SIZES)
def test_the_patch_under_a_characters_centre_has_its_class_and_index(size: tuple[int, int]) -> None:
    labels = patch_labels(_scene(prints=(WORD,)), size, GRID)
    for i, (left, top, right, bottom) in enumerate(character_boxes(WORD, size)):
        row, half = int((top + bottom) / 2 * GRID), int((left + right) / 2 * GRID * HALVES)
        assert labels.character[row, half] == character_class(WORD.text[i])
        assert labels.index[row, half] == i + 1
        assert labels.colour[row, half // HALVES] == list(COLOURS).index("black") + 1


def test_letter_case_does_not_change_the_class() -> None:
    assert character_class("q") == character_class("Q")


@pytest.mark.parametrize("shape", sorted(CORNERS))
def test_a_things_patches_carry_its_shape_and_colour_and_its_pixels_its_rgb(shape: str) -> None:
    thing = Thing(shape=shape, colour="blue", rgb=COLOURS["blue"], x=0.4, y=0.6, size=0.4)
    scene = _scene(things=(thing,))
    labels = patch_labels(scene, (120, 120), GRID)
    assert set(labels.shape[labels.shape > 0]) == {SHAPES.index(shape) + 1}
    assert labels.shape[6, 4] == SHAPES.index(shape) + 1
    assert np.argwhere(labels.centre).tolist() == [[6, 4]]
    colours = np.where(labels.shape > 0, *(list(COLOURS).index(name) + 1 for name in ("blue", "white")))
    assert (labels.colour == colours).all()
    drawn = (np.asarray(draw(scene)) == COLOURS["blue"]).all(-1)
    rows, columns = np.nonzero(drawn)
    assert columns.min() / 120 >= 0.4 - 0.21
    assert columns.max() / 120 <= 0.4 + 0.21
    assert rows.min() / 120 >= 0.6 - 0.21
    assert rows.max() / 120 <= 0.6 + 0.21


def test_an_empty_picture_has_only_its_background() -> None:
    labels = patch_labels(_scene(), (120, 120), GRID)
    assert not any(one.any() for one in (labels.character, labels.index, labels.shape, labels.centre))
    assert (labels.colour == list(COLOURS).index("white") + 1).all()


def test_perspective_moves_a_things_centre_with_its_pixels() -> None:
    thing = Thing(shape="circle", colour="blue", rgb=COLOURS["blue"], x=0.9, y=0.9, size=0.1)
    corners: Corners = ((0.0, 0.0), (0.7, 0.0), (0.7, 0.7), (0.0, 0.7))
    drawn = (np.asarray(draw(_scene(things=(thing,), corners=corners))) == COLOURS["blue"]).all(-1)
    rows, columns = np.nonzero(drawn)
    assert centre_cell(thing, corners, GRID) == (int(rows.mean() / 120 * GRID), int(columns.mean() / 120 * GRID))
    assert centre_cell(thing, None, GRID) == (9, 9)
