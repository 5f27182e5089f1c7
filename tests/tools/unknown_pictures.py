"""How often mini takes its own pictures for unknown ones, and photographs for known ones.

    pip install '.[photographs]'
    PYTHONPATH=tests:examples python -m tools.unknown_pictures

The photographs are scikit-image's (those in its wheel), each whole and in crops of 30 to 80 % of its sides; nothing was
chosen by them: the limit comes from mini's own pictures. Drawings, pages of text and charts are counted apart.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable, Iterator
from importlib.resources import files
from itertools import islice
from pathlib import Path

from PIL import Image

from pretrain_mini.report import Share, share, table
from vlinstruct.mini.draw import draw
from vlinstruct.mini.world import sample_scene
from vlinstruct.model import Model, load
from vlinstruct.values import good

_PHOTOGRAPHS = """
    astronaut.png brick.png camera.png cell.png chelsea.png clock_motion.png coffee.png coins.png grass.png gravel.png
    hubble_deep_field.jpg ihc.png moon.png motorcycle_left.png motorcycle_right.png retina.jpg rocket.jpg
"""
_OTHERS = "chessboard_RGB.png color.png horse.png logo.png page.png phantom.png text.png"
_CROPS, _SMALLEST, _LARGEST = 8, 0.3, 0.8
_BATCH = 25


def crops(picture: Image.Image, rng: random.Random) -> Iterator[Image.Image]:
    """Yields parts of a picture."""
    for _ in range(_CROPS):
        width, height = (round(side * rng.uniform(_SMALLEST, _LARGEST)) for side in picture.size)
        left, top = rng.randint(0, picture.width - width), rng.randint(0, picture.height - height)
        yield picture.crop((left, top, left + width, top + height))


def unknown(model: Model, name: str, pictures: Iterable[Image.Image]) -> Share:
    """Counts the pictures that the model does not know."""
    left, outcomes = iter(pictures), []
    while batch := list(islice(left, _BATCH)):
        outcomes += [not model.backend.knows(good(outcome)) for outcome in model.see_each(batch)]
    return share(name, outcomes)


def main() -> None:
    """Prints a table for each of the minis."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=2000, help="of the test part (default: %(default)s)")
    parser.add_argument("--backbone", nargs="*", default=["mini", "mini-llama"], help="(default: both minis)")
    arguments = parser.parse_args()
    folder = Path(str(files("skimage"))) / "data"
    photographs, others = (
        [Image.open(folder / name).convert("RGB") for name in names.split()] for names in (_PHOTOGRAPHS, _OTHERS)
    )
    for backbone in arguments.backbone:
        model, rng = load(backbone), random.Random(0)
        scenes = (draw(sample_scene(seed, split="test")) for seed in range(arguments.scenes))
        counted = (
            unknown(model, "mini's own pictures, test part", scenes),
            unknown(model, "photographs", photographs),
            unknown(model, "crops of photographs", (crop for one in photographs for crop in crops(one, rng))),
            unknown(model, "drawings, pages, charts", others),
        )
        print(f"{backbone}: called unknown\n\n{table(counted)}\n")


if __name__ == "__main__":
    main()
