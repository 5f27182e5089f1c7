"""Draws a scene as an RGB picture of any size; a pure function of scene and size.

Everything is drawn at twice the size and halved: Pillow's polygons have hard edges, and photographs have none. Legend:
px are pixels of the finished picture.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from vlinstruct.mini.fonts import advance, capital_ratio, load_font
from vlinstruct.mini.scene import UNMOVED, Corners, Print, Scene, Thing

Size = tuple[int, int]
Point = tuple[float, float]

DEFAULT_SIZE: Size = (120, 120)  # mini's own: ten patches of 12 px a side
_OVERSAMPLING = 2
_MAX_TEXT_WIDTH = 0.94


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a printed text lies.

    Args:
        font_px: em size of the font.
        left: left end of the text, px.
        baseline: of the letters, px from the top.
        edges: px from `left` to the start of each character, and to the end of the last.
        capital: height of the capitals, px.
    """

    font_px: int
    left: float
    baseline: float
    edges: tuple[float, ...]
    capital: float


@lru_cache(maxsize=512)
def layout(text: Print, size: Size) -> Layout:
    """Places a text in a picture of `size`; one too wide is shrunk to 94 % of the width."""
    width, height = size
    # Fonts of one em size differ in the height of their capitals; a scene means the capitals, which is what is read.
    ratio = capital_ratio(text.font)
    font_px = max(4, round(text.height * height / ratio))
    length = load_font(text.font, font_px).getlength(text.text)
    if length > _MAX_TEXT_WIDTH * width:
        font_px = max(4, int(font_px * _MAX_TEXT_WIDTH * width / length))
        length = load_font(text.font, font_px).getlength(text.text)
    # The length divided among the characters by their advances; measuring every start of the text costs ten times that.
    ends = list(accumulate((advance(text.font, character) for character in text.text), initial=0.0))
    edges = tuple(end * length / ends[-1] for end in ends)
    left = min(max(text.x * width - length / 2, 0.02 * width), max(0.98 * width - length, 0.02 * width))
    capital = ratio * font_px
    return Layout(font_px=font_px, left=left, baseline=text.y * height + capital / 2, edges=edges, capital=capital)


def canvas_size(size: Size) -> Size:
    """Returns the size at which a picture of `size` is drawn before it is reduced."""
    return size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING


def _polygon(corners: list[Point], thing: Thing, size: Size) -> list[Point]:
    """Maps corners of the unit disk to the picture."""
    radius = thing.size * min(size) / 2
    cos, sin = math.cos(math.radians(thing.angle)), math.sin(math.radians(thing.angle))
    centre_x, centre_y = thing.x * size[0], thing.y * size[1]
    return [(centre_x + radius * (x * cos - y * sin), centre_y + radius * (x * sin + y * cos)) for x, y in corners]


def _around(count: int, radii: tuple[float, ...]) -> list[Point]:
    """Corners at equal angles from the top, at radii that take turns."""
    angles = (2 * math.pi * i / count - math.pi / 2 for i in range(count))
    return [(radii[i % len(radii)] * math.cos(a), radii[i % len(radii)] * math.sin(a)) for i, a in enumerate(angles)]


def _heart() -> list[Point]:
    steps = (2 * math.pi * i / 40 for i in range(40))
    return [
        (
            math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16,
        )
        for t in steps
    ]


_ARM = 0.34
CORNERS: dict[str, list[Point]] = {
    "circle": _around(48, (1.0,)),
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0.0, -0.95), (0.95, 0.8), (-0.95, 0.8)],
    "star": _around(10, (1.0, 0.42)),
    "diamond": [(0.0, -1.0), (0.72, 0.0), (0.0, 1.0), (-0.72, 0.0)],
    "cross": [
        *((-_ARM, -0.95), (_ARM, -0.95), (_ARM, -_ARM), (0.95, -_ARM), (0.95, _ARM), (_ARM, _ARM)),
        *((_ARM, 0.95), (-_ARM, 0.95), (-_ARM, _ARM), (-0.95, _ARM), (-0.95, -_ARM), (-_ARM, -_ARM)),
    ],
    "heart": _heart(),
    "ring": _around(48, (1.0,)),
}


def _draw_thing(pen: ImageDraw.ImageDraw, thing: Thing, size: Size) -> None:
    corners = _polygon(CORNERS[thing.shape], thing, size)
    if thing.shape == "ring":
        width = max(2, round(0.16 * thing.size * min(size)))
        xs, ys = zip(*corners, strict=True)
        pen.ellipse((min(xs), min(ys), max(xs), max(ys)), outline=thing.rgb, width=width)
    else:
        pen.polygon(corners, fill=thing.rgb)


def _draw_print(pen: ImageDraw.ImageDraw, text: Print, size: Size) -> None:
    place = layout(text, size)
    if text.panel is not None:
        margin = 0.35 * place.capital
        top, right = place.baseline - place.capital - margin, place.left + place.edges[-1] + margin
        pen.rectangle((place.left - margin, top, right, place.baseline + margin), fill=text.panel)
    font = load_font(text.font, place.font_px)
    pen.text((place.left, place.baseline), text.text, fill=text.rgb, font=font, anchor="ls")


@lru_cache(maxsize=256)
def homography(corners: Corners) -> NDArray[np.float64]:
    """Returns the (3, 3) matrix that takes UNMOVED to `corners`, in homogeneous coordinates.

    >>> homography(UNMOVED).round(6).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    rows, targets = [], []
    for (x, y), (u, v) in zip(UNMOVED, corners, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        targets += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(targets)), 1.0).reshape(3, 3)


def moved(points: NDArray[np.float64], corners: Corners | None) -> NDArray[np.float64]:
    """Returns where points (..., 2) end up; None moves nothing."""
    if corners is None:
        return points
    homogeneous = np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1) @ homography(corners).T
    return homogeneous[..., :2] / homogeneous[..., 2:]


def pillow_coefficients(corners: Corners, size: tuple[int, int]) -> tuple[float, ...]:
    """Returns what `Image.transform` takes for this warp: eight numbers that lead from the new pixels to the old."""
    to_pixels = np.diag([size[0], size[1], 1.0])
    inverse = to_pixels @ np.linalg.inv(homography(corners)) @ np.linalg.inv(to_pixels)
    return tuple((inverse / inverse[2, 2]).flatten()[:8].tolist())


def _degrade(image: Image.Image, scene: Scene) -> Image.Image:
    # In a camera's order: its lens, its sensor, its file.
    if scene.blur:
        image = image.filter(ImageFilter.GaussianBlur(scene.blur))
    if scene.noise:
        noise = np.random.default_rng(scene.noise_seed).standard_normal((image.height, image.width, 3), np.float32)
        levels = np.asarray(image, np.float32) + scene.noise * noise
        image = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    if scene.jpeg_quality is not None:
        # Through a file's bytes: only an encoder makes a JPEG's blocks and rings.
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=scene.jpeg_quality)
        image = Image.open(buffer).convert("RGB")
    return image


def draw(scene: Scene, size: Size = DEFAULT_SIZE) -> Image.Image:
    """Draws a scene.

    Args:
        scene: what to draw.
        size: width and height in px; need not be square.

    Returns:
        An RGB picture.

    Raises:
        ResourceError: a text's font is not installed.
    """
    full = canvas_size(size)
    canvas = Image.new("RGB", full, scene.background_rgb)
    pen = ImageDraw.Draw(canvas)
    for thing in scene.things:
        _draw_thing(pen, thing, full)
    for text in scene.prints:
        _draw_print(pen, text, full)
    if scene.corners is not None:
        canvas = canvas.transform(
            full,
            Image.Transform.PERSPECTIVE,
            pillow_coefficients(scene.corners, full),
            Image.Resampling.BILINEAR,
            fillcolor=scene.background_rgb,
        )
    return _degrade(canvas.reduce(_OVERSAMPLING), scene)
