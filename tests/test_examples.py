"""Every script in examples/ runs and prints something."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

import vlinstruct as vli
from vlinstruct.media.clips import load_clip
from vlinstruct.mini.draw import draw
from vlinstruct.settings import ClipSettings

EXAMPLES = Path(__file__).parent.parent / "examples"


# Ray starts processes of its own, for the second call of .ci/run.
SCRIPTS = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem == "ray_data" else [])
    for path in sorted(EXAMPLES.glob("*.py"))
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_runs(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if script.stem == "ray_data":
        pytest.importorskip("ray")
    values = runpy.run_path(str(script))
    assert values["__doc__"]
    assert capsys.readouterr().out.strip() or script.stem == "draw_pictures"


def test_the_clip_is_what_the_example_draws() -> None:
    path = EXAMPLES / "pictures" / "rising_star.mp4"
    assert path.stat().st_size < 30_000
    clip = load_clip(path, settings=ClipSettings(num_frames=16)).clip
    scenes = runpy.run_path(str(EXAMPLES / "draw_pictures.py"))["FRAMES"]
    for frame, scene in zip(clip.frames, scenes, strict=True):
        assert max(ImageStat.Stat(ImageChops.difference(frame, draw(scene, frame.size))).mean) < 3
    model = vli.load("mini", device="cpu")
    assert model.ask(path, "what colour is the star?").text == "blue"


def test_the_pictures_are_what_the_example_draws() -> None:
    """Nearly: another Pillow smooths edges otherwise. Two different ones of the pictures are off by 50 and more."""
    for name, scene in runpy.run_path(str(EXAMPLES / "draw_pictures.py"))["SCENES"].items():
        with Image.open(EXAMPLES / "pictures" / name) as picture:
            apart = ImageChops.difference(picture.convert("RGB"), draw(scene, picture.size))
        assert max(ImageStat.Stat(apart).mean) < 2
