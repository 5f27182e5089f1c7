from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from pretrain_mini.evaluate_answers import HEIGHTS, scenes_of_height
from pretrain_mini.report import ReadingPoint, Share, save_reading_curve
from vlinstruct.mini.draw import DEFAULT_SIZE, layout
from vlinstruct.mini.words import split_of


@pytest.mark.parametrize("height", [HEIGHTS[0], HEIGHTS[-1]])
def test_texts_have_the_height_asked_for_and_are_held_out(height: float) -> None:
    for scene in islice(scenes_of_height(height, "dev", ("pillow",)), 10):
        assert layout(scene.prints[0], DEFAULT_SIZE).capital / DEFAULT_SIZE[1] == pytest.approx(height, rel=0.1)
        assert split_of(scene.prints[0].text) == "dev"
        assert not scene.things


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    points = [ReadingPoint(height=height, read=Share(name="", hits=7, items=10)) for height in HEIGHTS]
    save_reading_curve(points, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        colours = picture.convert("RGB").getcolors(100_000)
    assert colours is not None
    assert (34, 74, 200) in {colour for _, colour in colours}
