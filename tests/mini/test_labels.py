import numpy as np
import pytest

from vlinstruct.mini.draw import CORNERS, draw
from vlinstruct.mini.labels import character_boxes, character_class, patch_labels
from vlinstruct.mini.scene import COLOURS, SHAPES, Print, Scene, Thing

BLACK = COLOURS["black"]
WORD = Print(text="MAPS", colour="black", rgb=BLACK, font="pillow", x=0.5, y=0.4, height=0.22)
SIZES = [(112, 112), (160, 112)]


def _scene(**content: object) -> Scene:
    return Scene(background="white", background_rgb=(255, 255, 255), **content)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", SIZES)
def test_all_ink_of_a_word_lies_in_its_characters_boxes(size: tuple[int, int]) -> None:
    ink = np.asarray(draw(_scene(prints=(WORD,)), size).convert("L")) < 128
    boxes = np.array(character_boxes(WORD, size)) * np.array([*size, *size])
    inside = np.zeros_like(ink)
    for left, top, right, bottom in boxes:
        box = np.s_[round(top) - 1 : round(bottom) + 2, round(left) - 1 : round(right) + 2]
        assert ink[box].any()
        inside[box] = True
    assert not (ink & ~inside).any()


@pytest.mark.parametrize("size", SIZES)
def test_the_patch_under_a_characters_centre_has_its_class_and_index(size: tuple[int, int]) -> None:
    labels = patch_labels(_scene(prints=(WORD,)), size)
    for i, (left, top, right, bottom) in enumerate(character_boxes(WORD, size)):
        row, column = int((top + bottom) / 2 * 8), int((left + right) / 2 * 8)
        assert labels.character[row, column] == character_class(WORD.text[i])
        assert labels.index[row, column] == i + 1
        assert labels.colour[row, column] == list(COLOURS).index("black") + 1


def test_letter_case_does_not_change_the_class() -> None:
    assert character_class("q") == character_class("Q")


@pytest.mark.parametrize("shape", sorted(CORNERS))
def test_a_things_patches_carry_its_shape_and_colour_and_its_pixels_its_rgb(shape: str) -> None:
    thing = Thing(shape=shape, colour="blue", rgb=COLOURS["blue"], x=0.4, y=0.6, size=0.4)
    scene = _scene(things=(thing,))
    labels = patch_labels(scene, (112, 112))
    assert set(labels.shape[labels.shape > 0]) == {SHAPES.index(shape) + 1}
    assert labels.shape[4, 3] == SHAPES.index(shape) + 1
    colours = np.where(labels.shape > 0, *(list(COLOURS).index(name) + 1 for name in ("blue", "white")))
    assert (labels.colour == colours).all()
    drawn = (np.asarray(draw(scene)) == COLOURS["blue"]).all(-1)
    rows, columns = np.nonzero(drawn)
    assert columns.min() / 112 >= 0.4 - 0.21
    assert columns.max() / 112 <= 0.4 + 0.21
    assert rows.min() / 112 >= 0.6 - 0.21
    assert rows.max() / 112 <= 0.6 + 0.21


def test_an_empty_picture_has_only_its_background() -> None:
    labels = patch_labels(_scene(), (112, 112))
    assert not np.stack([labels.character, labels.index, labels.shape]).any()
    assert (labels.colour == list(COLOURS).index("white") + 1).all()
