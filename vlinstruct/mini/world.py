"""Samples scenes: which things and texts, in which colours and places. A pure function of the seed.

Whoever changes the order of the samples changes every scene: mini's published figures and the tests' answers with it.

"train" scenes use the training fonts and words, "dev" and "test" scenes only fonts and words of their own (`fonts.py`,
`words.py`), and at times a layout that no training scene has: things above and below the text at once.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from vlinstruct.mini import Split
from vlinstruct.mini.fonts import BUILT_IN, FONTS, TRAIN_FONTS
from vlinstruct.mini.scene import COLOURS, RGB, SHAPES, UNMOVED, Corners, Print, Scene, Thing
from vlinstruct.mini.words import sample_text, with_case

# Lengths are fractions of the picture.
_JITTER = 22  # grey levels by which a colour may differ from the one of its name
_MIN_COLOUR_DISTANCE = 95.0  # in RGB, between a thing and what it lies on
_MIN_LUMINANCE_DIFFERENCE = 60.0  # between letters and what they stand on; a hue alone does not make them legible
_TEXT_HEIGHT = (1 / 6, 1 / 3)
_SMALL_TEXT_HEIGHT = 0.08
_SMALL_TEXT_SHARE = 0.3
_ADVANCE = 0.85  # about a letter's width, in heights of a capital
_TILT = 0.08  # how far a corner moves in at most
_MIN_BAND = 0.25  # the height at which things still fit above or below a text
# A label stands at the top, the things that it may or may not name below it.
_LABELLED_BAND = (0.32, 1.0)
_LABEL_PLACE = 0.17
_LABEL_HEIGHT = 0.26

# README's first example, found by a search (tests/tools/README.md#the-first-example).
_FIRST_SEED = 735888354949
FIRST_QUESTION = "is the green triangle rigth of teh purple ring ?"

Band = tuple[float, float]


def _near(colour: str, rng: random.Random) -> RGB:
    red, green, blue = (min(255, max(0, level + rng.randint(-_JITTER, _JITTER))) for level in COLOURS[colour])
    return red, green, blue


def _luminance(rgb: RGB) -> float:
    """Returns how bright a colour looks, 0 to 255 (ITU-R BT.601)."""
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def _legible_colour(ground: RGB, rng: random.Random) -> str:
    """Samples a colour for letters that are clearly brighter or darker than what they stand on."""
    ground_luminance = _luminance(ground)
    contrasts = {name: abs(_luminance(rgb) - ground_luminance) for name, rgb in COLOURS.items()}
    return rng.choice([name for name, contrast in contrasts.items() if contrast > _MIN_LUMINANCE_DIFFERENCE])


def _colour_beside(other: RGB, rng: random.Random) -> str:
    """Samples a colour that stands out from another."""
    return rng.choice([name for name, rgb in COLOURS.items() if math.dist(rgb, other) > _MIN_COLOUR_DISTANCE])


def _place(things: list[Thing], size: float, top: float, bottom: float, rng: random.Random) -> tuple[float, float]:
    """Samples a centre in the band from `top` to `bottom` that keeps clear of the things already there.

    Raises:
        ValueError: no room was found.
    """
    half = size / 2 + 0.02
    for _ in range(60):
        x, y = rng.uniform(half, 1 - half), rng.uniform(top + half, bottom - half)
        if all(math.dist((x, y), (t.x, t.y)) > 0.54 * (size + t.size) + 0.02 for t in things):
            return x, y
    raise ValueError("no room")


def _things(count: int, bands: Sequence[Band], background: RGB, rng: random.Random) -> tuple[Thing, ...]:
    """Samples up to `count` things, band by band in turn; fewer kinds than things make counting a task, and
    colours repeat in half of the scenes."""
    kinds = rng.sample(SHAPES, rng.choice((1, 2, 2, 3, 5, 8)))
    repeats = rng.choice((0.0, 0.3, 0.7))
    things: list[Thing] = []
    for i in range(count):
        top, bottom = bands[i % len(bands)]
        most = min(0.40 if count < 3 else 0.30, 0.9 * (bottom - top))
        size = rng.uniform(min(0.15, most), most)
        try:
            x, y = _place(things, size, top, bottom, rng)
        except ValueError:
            continue  # a scene with fewer things is as good as another try
        is_repeated = things and rng.random() < repeats
        colour = things[-1].colour if is_repeated else _colour_beside(background, rng)
        angle = rng.uniform(-8, 8)
        shape = rng.choice(kinds)
        things.append(Thing(shape=shape, colour=colour, rgb=_near(colour, rng), x=x, y=y, size=size, angle=angle))
    return tuple(things)


def _text_height(length: int, rng: random.Random) -> float:
    """Samples a height of capitals at which a word of `length` letters about fits the width."""
    low, high = (_SMALL_TEXT_HEIGHT, _TEXT_HEIGHT[0]) if rng.random() < _SMALL_TEXT_SHARE else _TEXT_HEIGHT
    return max(_SMALL_TEXT_HEIGHT, min(rng.uniform(low, high), 1 / (_ADVANCE * length)))


def _print(text: str, background: RGB, fonts: Sequence[str], rng: random.Random) -> Print:
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


def _bands_beside(text: Print, split: Split, rng: random.Random) -> list[Band]:
    """Returns the larger of the free bands above and below a text; but for training at times both."""
    above, below = text.y - 0.85 * text.height, text.y + 0.95 * text.height
    if split != "train" and min(above, 1 - below) > _MIN_BAND and rng.random() < 0.5:
        return [(0.0, above), (below, 1.0)]
    return [(0.0, above) if above > 1 - below else (below, 1.0)]


def _corners(share: float, rng: random.Random) -> Corners | None:
    """Moves the corners inwards a little, in a share of the pictures."""
    if rng.random() >= share:
        return None
    # abs: 0 moves right or down, 1 left or up.
    (a, b), (c, d), (e, f), (g, h) = (
        tuple(abs(place - rng.uniform(0, _TILT)) for place in corner) for corner in UNMOVED
    )
    return (a, b), (c, d), (e, f), (g, h)


def _labelling_text(things: Sequence[Thing], rng: random.Random) -> str:
    """Samples a colour or shape word, in one case of two one that is true of a thing."""
    if rng.random() < 0.5:
        return rng.choice([word for thing in things for word in (thing.colour, thing.shape)])
    return rng.choice((*COLOURS, *SHAPES))


def sample_scene(seed: int, *, split: Split = "train", fonts: Sequence[str] | None = None) -> Scene:
    """Samples a scene.

    Args:
        seed: any integer; the same seed gives the same scene on every machine.
        split: whose fonts and words are used; "dev" and "test" have held-out layouts, too.
        fonts: file names to print with instead of the split's own.
    """
    rng = random.Random(f"{split} picture {seed}")
    fonts = fonts or FONTS[split]
    background = rng.choice(tuple(COLOURS))
    rgb = _near(background, rng)
    kind = rng.choices(("text", "things", "both", "labelled"), (0.40, 0.28, 0.22, 0.10))[0]
    things: tuple[Thing, ...] = ()
    prints: tuple[Print, ...] = ()
    if kind == "things":
        things = _things(rng.randint(1, 5), [(0.0, 1.0)], rgb, rng)
    elif kind == "labelled":
        things = _things(rng.randint(1, 2), [_LABELLED_BAND], rgb, rng)
        text = _print(_labelling_text(things, rng), rgb, fonts, rng)
        prints = (replace(text, y=_LABEL_PLACE, height=min(text.height, _LABEL_HEIGHT)),)
    else:
        prints = (_print(sample_text(rng, split), rgb, fonts, rng),)
        if kind == "both":
            things = _things(rng.randint(1, 3), _bands_beside(prints[0], split, rng), rgb, rng)
    return Scene(
        background=background,
        background_rgb=rgb,
        things=things,
        prints=prints,
        corners=_corners(0.3, rng),
        blur=rng.uniform(0.2, 0.8) if rng.random() < 0.25 else 0.0,
        noise=rng.uniform(1, 9) if rng.random() < 0.4 else 0.0,
        jpeg_quality=rng.randint(45, 95) if rng.random() < 0.25 else None,
        noise_seed=rng.getrandbits(32),
    )


def first_scene() -> Scene:
    """Returns the scene that `FIRST_QUESTION` asks about."""
    return sample_scene(_FIRST_SEED, split="dev", fonts=(BUILT_IN,))


def sample_page(seed: int, *, fonts: Sequence[str] | None = None) -> Scene:
    """Samples a page full of training words: several times as many characters to learn from as in a scene.

    Args:
        seed: any integer; the same seed gives the same page on every machine.
        fonts: file names to print with instead of the training fonts.
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
        corners=_corners(0.25, rng),
        blur=rng.uniform(0.2, 0.8) if rng.random() < 0.15 else 0.0,
        noise=rng.uniform(1, 9) if rng.random() < 0.3 else 0.0,
        noise_seed=rng.getrandbits(32),
    )


def _line(line: int, lines: int, background: RGB, fonts: Sequence[str], rng: random.Random) -> Print:
    """Samples a word or number for one of a page's lines."""
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
