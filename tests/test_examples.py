"""Every script in examples/ runs and prints something."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from vlinstruct.mini.draw import draw

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = runpy.run_path(str(script))
    assert values["__doc__"]
    assert capsys.readouterr().out.strip() or script.stem == "draw_pictures"


def test_the_pictures_are_what_the_example_draws() -> None:
    """Nearly: another Pillow smooths edges otherwise. Two different ones of the pictures are off by 50 and more."""
    for name, scene in runpy.run_path(str(EXAMPLES / "draw_pictures.py"))["SCENES"].items():
        with Image.open(EXAMPLES / "pictures" / name) as picture:
            apart = ImageChops.difference(picture.convert("RGB"), draw(scene, picture.size))
        assert max(ImageStat.Stat(apart).mean) < 2
