"""Every script in examples/ runs and prints something."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = runpy.run_path(str(script))
    assert values["__doc__"]
    assert capsys.readouterr().out.strip() or script.stem == "draw_pictures"


def test_the_pictures_are_what_the_example_draws() -> None:
    from PIL import Image, ImageChops

    from vlinstruct.mini.draw import draw

    for name, scene in runpy.run_path(str(EXAMPLES / "draw_pictures.py"))["SCENES"].items():
        with Image.open(EXAMPLES / "pictures" / name) as picture:
            assert ImageChops.difference(picture.convert("RGB"), draw(scene, picture.size)).getbbox() is None
