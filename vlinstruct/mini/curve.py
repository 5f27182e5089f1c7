"""Draws the learning curve from the training log, with PIL."""

from __future__ import annotations

import json
import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vlinstruct.mini.scene import COLOURS

_SIZE = (960, 540)
_MARGIN = 60
_SHOWN = {
    "target": "blue",
    "rewrite": "green",
    "copying": "purple",
    "patch_character": "orange",
    "patch_index": "brown",
    "query_characters": "red",
    "query_verdict": "grey",
}
_LOSSES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_SMOOTHING = 0.9


def _smoothed(values: list[float]) -> list[float]:
    """Exponential moving average."""
    smooth = values[:1]
    for value in values[1:]:
        smooth.append(_SMOOTHING * smooth[-1] + (1 - _SMOOTHING) * value)
    return smooth


def _height(loss: float) -> float:
    """Maps a loss to pixels from the top, on a logarithmic scale."""
    low, high = math.log(_LOSSES[0]), math.log(_LOSSES[-1] * 1.5)
    share = (math.log(max(loss, _LOSSES[0])) - low) / (high - low)
    return _SIZE[1] - _MARGIN - share * (_SIZE[1] - 2 * _MARGIN)


def _draw_scale(pen: ImageDraw.ImageDraw, last_pictures: int) -> None:
    font = ImageFont.load_default(14)
    for loss in _LOSSES:
        pen.line((_MARGIN, _height(loss), _SIZE[0] - _MARGIN, _height(loss)), fill=(225, 225, 225))
        pen.text((_MARGIN - 8, _height(loss)), f"{loss:g}", fill="black", font=font, anchor="rm")
    for share in (0.25, 0.5, 0.75, 1.0):
        x = _MARGIN + share * (_SIZE[0] - 2 * _MARGIN)
        pen.text(
            (x, _SIZE[1] - _MARGIN + 8), f"{share * last_pictures / 1000:.0f}k", fill="black", font=font, anchor="mt"
        )
    pen.text((_SIZE[0] / 2, _SIZE[1] - 20), "pictures", fill="black", font=font, anchor="mm")
    pen.text((_MARGIN, 20), "training losses, nats (logarithmic)", fill="black", font=font, anchor="lm")


def save_curve(log: Path, picture: Path) -> None:
    """Draws the losses of a training log against the pictures seen.

    Args:
        log: JSON lines with "pictures" and losses by name.
        picture: PNG file to write.
    """
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    image = Image.new("RGB", _SIZE, "white")
    pen = ImageDraw.Draw(image)
    last_pictures = lines[-1]["pictures"] if lines else 1
    _draw_scale(pen, last_pictures)
    for row, (name, colour) in enumerate(_SHOWN.items()):
        known = [line for line in lines if name in line]
        heights = map(_height, _smoothed([line[name] for line in known]))
        xs = [_MARGIN + (_SIZE[0] - 2 * _MARGIN) * line["pictures"] / last_pictures for line in known]
        pen.line(list(zip(xs, heights, strict=True)), fill=COLOURS[colour], width=2)
        pen.text((_SIZE[0] - _MARGIN - 140, 30 + 18 * row), name, fill=COLOURS[colour], font=ImageFont.load_default(14))
    image.save(picture)
