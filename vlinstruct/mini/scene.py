"""What a drawn picture contains, as plain values: coordinates are fractions of the picture's width and height.

A `Scene` is drawn by `draw.py` and asked about by `questions/`; neither needs anything else. Names of colours and
shapes are the closed vocabulary of mini's answers.
"""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[int, int, int]
Corners = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]

# Clockwise from the top left corner.
UNMOVED: Corners = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))

COLOURS: dict[str, RGB] = {
    "red": (208, 32, 38),
    "green": (34, 146, 60),
    "blue": (34, 74, 200),
    "yellow": (244, 214, 32),
    "orange": (244, 132, 24),
    "purple": (124, 48, 160),
    "pink": (248, 150, 190),
    "brown": (124, 74, 36),
    "black": (22, 22, 24),
    "white": (246, 246, 244),
    "grey": (134, 136, 138),
}
COLOUR_NAMES = tuple(COLOURS)
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross", "heart", "ring")


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A coloured shape.

    Args:
        shape: one of SHAPES.
        colour: its name, a key of COLOURS.
        rgb: the colour as drawn, near the named one.
        x: centre from the left edge, 0 to 1.
        y: centre from the top edge, 0 to 1.
        size: diameter as a fraction of the picture's shorter side.
        angle: rotation in degrees, small.
    """

    shape: str
    colour: str
    rgb: RGB
    x: float
    y: float
    size: float
    angle: float = 0.0

    @property
    def name(self) -> str:
        """What a person calls it.

        >>> Thing(shape="star", colour="red", rgb=(208, 32, 38), x=0.5, y=0.5, size=0.2).name
        'red star'
        """
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, kw_only=True)
class Print:
    """A word or number printed in the picture.

    Args:
        text: as printed, any letter case.
        colour: its name, a key of COLOURS.
        rgb: the colour as drawn.
        font: the font's file name, or "pillow" for Pillow's own.
        x: centre from the left edge, 0 to 1.
        y: centre of the capitals from the top edge, 0 to 1.
        height: of a capital letter, as a fraction of the picture's height; shrunk when the word is too wide.
        panel: colour of a plate behind the text, or None.
    """

    text: str
    colour: str
    rgb: RGB
    font: str
    x: float
    y: float
    height: float
    panel: RGB | None = None


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All that is in a picture.

    Args:
        background: name of the background's colour.
        background_rgb: the background as drawn.
        things: coloured shapes, none overlapping another.
        prints: printed texts.
        corners: where the picture's corners are moved to, or None for no perspective.
        blur: radius in pixels of the finished picture; 0 is none.
        noise: standard deviation in grey levels; 0 is none.
        jpeg_quality: 1 to 95, or None for no compression.
        noise_seed: fixes the noise.
    """

    background: str
    background_rgb: RGB
    things: tuple[Thing, ...] = ()
    prints: tuple[Print, ...] = ()
    corners: Corners | None = None
    blur: float = 0.0
    noise: float = 0.0
    jpeg_quality: int | None = None
    noise_seed: int = 0
