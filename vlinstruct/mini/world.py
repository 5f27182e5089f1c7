"""Samples scenes: which things and texts, in which colours and places. A pure function of the seed.

"train" scenes use the training fonts and words, "test" scenes only fonts and words that no training scene contains
(`fonts.py`, `words.py`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from vlinstruct.mini.fonts import HELD_OUT_FONTS, TRAIN_FONTS
from vlinstruct.mini.scene import COLOURS, RGB, SHAPES, Print, Scene, Thing
from vlinstruct.mini.words import Split, sample_text, with_case

_JITTER = 22
_LEAST_CONTRAST = 95.0
_LEAST_TEXT_CONTRAST = 60.0
_TEXT_HEIGHT = (1 / 6, 1 / 3)
_SMALL_TEXT = 0.12
_ADVANCE = 0.95


def _near(colour: str, rng: random.Random) -> RGB:
    red, green, blue = (min(255, max(0, level + rng.randint(-_JITTER, _JITTER))) for level in COLOURS[colour])
    return red, green, blue


def _luminance(rgb: RGB) -> float:
    """Returns how bright a colour looks, 0 to 255 (ITU-R BT.601)."""
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def _legible_colour(ground: RGB, rng: random.Random) -> str:
    """Draws a colour for letters that are clearly brighter or darker than what they stand on."""
    known = COLOURS.items()
    return rng.choice([n for n, rgb in known if abs(_luminance(rgb) - _luminance(ground)) > _LEAST_TEXT_CONTRAST])


def _colour_beside(other: RGB, rng: random.Random) -> str:
    """Draws a colour that stands out from another."""
    return rng.choice([name for name, rgb in COLOURS.items() if math.dist(rgb, other) > _LEAST_CONTRAST])


def _place(things: list[Thing], size: float, top: float, bottom: float, rng: random.Random) -> tuple[float, float]:
    """Draws a centre in the band from `top` to `bottom` that keeps clear of the things already there.

    Raises:
        ValueError: no room was found.
    """
    half = size / 2 + 0.02
    for _ in range(60):
        x, y = rng.uniform(half, 1 - half), rng.uniform(top + half, bottom - half)
        if all(math.dist((x, y), (t.x, t.y)) > 0.54 * (size + t.size) + 0.02 for t in things):
            return x, y
    raise ValueError("no room")


def _things(count: int, band: tuple[float, float], background: RGB, rng: random.Random) -> tuple[Thing, ...]:
    """Draws up to `count` things; fewer kinds than things makes counting a task."""
    kinds = rng.sample(SHAPES, rng.choice((1, 2, 2, 3, 5)))
    most = min(0.40 if count < 3 else 0.30, 0.9 * (band[1] - band[0]))
    things: list[Thing] = []
    for _ in range(count):
        size = rng.uniform(0.15, most)
        try:
            x, y = _place(things, size, *band, rng)
        except ValueError:
            continue
        colour = _colour_beside(background, rng)
        angle = rng.uniform(-8, 8)
        shape = rng.choice(kinds)
        things.append(Thing(shape=shape, colour=colour, rgb=_near(colour, rng), x=x, y=y, size=size, angle=angle))
    return tuple(things)


def _text_height(length: int, rng: random.Random) -> float:
    """Draws a height of capitals at which a word of `length` letters about fits the width."""
    low = _SMALL_TEXT if rng.random() < 0.2 else _TEXT_HEIGHT[0]
    return max(_SMALL_TEXT, min(rng.uniform(low, _TEXT_HEIGHT[1]), 1 / (_ADVANCE * length)))


def _print(background: RGB, split: Split, fonts: Sequence[str], rng: random.Random) -> Print:
    text = sample_text(rng, split)
    height = _text_height(len(text), rng)
    plate = _near(_colour_beside(background, rng), rng) if rng.random() < 0.25 else None
    colour = _legible_colour(plate or background, rng)
    return Print(
        text=with_case(text, rng),
        colour=colour,
        rgb=_near(colour, rng),
        font=rng.choice(fonts),
        x=rng.uniform(0.2, 0.8),
        y=rng.uniform(0.08 + height / 2, 0.92 - height / 2),
        height=height,
        panel=plate,
    )


def _band_beside(text: Print) -> tuple[float, float]:
    """Returns the larger of the free bands above and below a text."""
    above, below = text.y - 0.85 * text.height, text.y + 0.95 * text.height
    return (0.0, above) if above > 1 - below else (below, 1.0)


def sample_scene(seed: int, *, split: Split = "train", fonts: Sequence[str] | None = None) -> Scene:
    """Draws a scene.

    Args:
        seed: any integer; the same seed gives the same scene on every machine.
        split: "train", or "test" for held-out fonts and words.
        fonts: file names to print with in place of the split's own.
    """
    rng = random.Random(f"{split} scene {seed}")
    fonts = fonts or (TRAIN_FONTS if split == "train" else HELD_OUT_FONTS)
    background = rng.choice(tuple(COLOURS))
    background_rgb = _near(background, rng)
    kind = rng.choices(("text", "things", "both"), (0.48, 0.28, 0.24))[0]
    prints = () if kind == "things" else (_print(background_rgb, split, fonts, rng),)
    band = _band_beside(prints[0]) if prints else (0.0, 1.0)
    count = {"text": 0, "things": rng.randint(1, 5), "both": rng.randint(1, 2)}[kind]
    return Scene(
        background=background,
        background_rgb=background_rgb,
        things=_things(count, band, background_rgb, rng) if count else (),
        prints=prints,
        blur=rng.uniform(0.2, 0.8) if rng.random() < 0.25 else 0.0,
        noise=rng.uniform(1, 9) if rng.random() < 0.4 else 0.0,
        jpeg_quality=rng.randint(45, 95) if rng.random() < 0.25 else None,
        noise_seed=rng.getrandbits(32),
    )


def sample_page(seed: int, *, fonts: Sequence[str] | None = None) -> Scene:
    """Draws a page full of training words: several times as many characters to learn from as in a scene.

    Args:
        seed: any integer; the same seed gives the same page on every machine.
        fonts: file names to print with in place of the training fonts.
    """
    rng = random.Random(f"page {seed}")
    background = rng.choice(tuple(COLOURS))
    background_rgb = _near(background, rng)
    lines = rng.randint(2, 5)
    prints = tuple(
        _line(line, lines, background_rgb, fonts or TRAIN_FONTS, rng) for line in range(lines) if rng.random() < 0.95
    )
    return Scene(
        background=background,
        background_rgb=background_rgb,
        prints=prints,
        blur=rng.uniform(0.2, 0.8) if rng.random() < 0.15 else 0.0,
        noise=rng.uniform(1, 9) if rng.random() < 0.3 else 0.0,
        noise_seed=rng.getrandbits(32),
    )


def _line(line: int, lines: int, background: RGB, fonts: Sequence[str], rng: random.Random) -> Print:
    """Draws a word or number for one of a page's lines."""
    colour = _legible_colour(background, rng)
    return Print(
        text=with_case(sample_text(rng, "train"), rng),
        colour=colour,
        rgb=_near(colour, rng),
        font=rng.choice(fonts),
        x=rng.uniform(0.2, 0.8),
        y=(line + 0.5 + rng.uniform(-0.08, 0.08)) / lines,
        height=min(rng.uniform(0.45, 0.68) / lines, 0.3),
    )
