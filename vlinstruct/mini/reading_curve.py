"""How well a model reads, against the height of the letters: measured on held-out fonts and words, drawn with PIL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.mini.draw import DEFAULT_SIZE, draw, layout
from vlinstruct.mini.questions import is_label
from vlinstruct.mini.scene import COLOURS, Scene
from vlinstruct.mini.shares import Share, share
from vlinstruct.mini.split import Split
from vlinstruct.mini.wording import canonical
from vlinstruct.mini.world import sample_scene
from vlinstruct.settings import GenerationSettings

# Fractions of the picture's height, from the least to the most that is asked of mini.
HEIGHTS = (1 / 14, 1 / 12, 1 / 10, 1 / 8, 1 / 7, 1 / 6, 1 / 5, 1 / 4, 1 / 3)
_LEAST_OF_HEIGHT = 0.93
_BATCH = 25
_GENERATION = GenerationSettings(max_new_tokens=16)
_SIZE = (720, 400)
_MARGIN = 60
_LABEL_WIDTH = 28


@dataclass(frozen=True, kw_only=True)
class ReadingPoint:
    """A point of the curve.

    Args:
        height: of the capitals, as a fraction of the picture's.
        read: the texts of that height that were read exactly.
    """

    height: float
    read: Share


def scenes_of_height(height: float, split: Split, fonts: Sequence[str] | None = None) -> Iterator[Scene]:
    """Yields scenes without things whose text is of a height; texts too wide for it are left out.

    Args:
        height: of the capitals, as a fraction of the picture's.
        split: whose fonts and words are used.
        fonts: file names to print with in place of the part's own.
    """
    for seed in count():
        scene = sample_scene(seed, split=split, fonts=fonts)
        if scene.things or not scene.prints or is_label(scene.prints[0].text):
            continue
        text = replace(scene.prints[0], height=height, y=min(max(scene.prints[0].y, 0.1 + height), 0.9 - height))
        if layout(text, DEFAULT_SIZE).capital >= _LEAST_OF_HEIGHT * height * DEFAULT_SIZE[1]:
            yield replace(scene, prints=(text,))


def reads(model: InstructBlipBackend, scenes: Sequence[Scene]) -> list[bool]:
    """Asks what is written in canonical words; True where it is read exactly."""
    texts = [scene.prints[0].text.lower() for scene in scenes]
    questions = [canonical("number" if text.isdigit() else "reading", {}) for text in texts]
    answers = model.generate(model.encode([draw(scene) for scene in scenes]), questions, questions, _GENERATION)
    return [answer == text for answer, text in zip(answers, texts, strict=True)]


def reading_curve(model: InstructBlipBackend, items: int, split: Split) -> list[ReadingPoint]:
    """Asks for `items` texts of every height."""
    points = []
    for height in HEIGHTS:
        scenes = list(islice(scenes_of_height(height, split), items))
        points.append(ReadingPoint(height=height, read=_read_share(f"letters 1/{1 / height:.0f} high", model, scenes)))
    return points


def _read_share(name: str, model: InstructBlipBackend, scenes: Sequence[Scene]) -> Share:
    return share(name, (right for i in range(0, len(scenes), _BATCH) for right in reads(model, scenes[i : i + _BATCH])))


def read_in_canonical_words(model: InstructBlipBackend, scenes: Sequence[Scene]) -> Share:
    """Asks all scenes whose text is 1/6 to 1/3 of the picture high, whatever else they show."""
    printed = [scene for scene in scenes if scene.prints and not is_label(scene.prints[0].text)]
    heights = [layout(scene.prints[0], DEFAULT_SIZE).capital / DEFAULT_SIZE[1] for scene in printed]
    inside = [scene for scene, height in zip(printed, heights, strict=True) if 1 / 6 <= height < 1 / 3]
    return _read_share("reading in canonical words, letters 1/6 to 1/3 high", model, inside)


def _place(height: float, rate: float) -> tuple[float, float]:
    """Maps a point to pixels."""
    across = height / HEIGHTS[-1] * (_SIZE[0] - 2 * _MARGIN)
    return _MARGIN + across, _SIZE[1] - _MARGIN - rate * (_SIZE[1] - 2 * _MARGIN)


def save_reading_curve(points: Sequence[ReadingPoint], picture: Path) -> None:
    """Draws the shares with their 95 % intervals.

    Args:
        points: of the curve.
        picture: PNG file to write.
    """
    image = Image.new("RGB", _SIZE, "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    for rate in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        pen.line((*_place(0, rate), *_place(HEIGHTS[-1], rate)), fill=(225, 225, 225))
        pen.text((_MARGIN - 8, _place(0, rate)[1]), f"{100 * rate:.0f} %", fill="black", font=font, anchor="rm")
    near_labels: list[float] = []
    for point in points:
        ends = [_place(point.height, rate) for rate in point.read.interval()]
        pen.line(ends, fill=COLOURS["grey"], width=3)
        label = (ends[0][0], _SIZE[1] - _MARGIN + 8)
        if not near_labels or label[0] - near_labels[-1] > _LABEL_WIDTH:
            near_labels.append(label[0])
            pen.text(label, f"1/{1 / point.height:.0f}", fill="black", font=font, anchor="mt")
    pen.line([_place(point.height, point.read.rate) for point in points], fill=COLOURS["blue"], width=2)
    below = (_SIZE[0] / 2, _SIZE[1] - 18)
    pen.text(below, "height of capitals / height of picture", fill="black", font=font, anchor="mm")
    pen.text((_MARGIN, 24), "held-out words and numbers read exactly", fill="black", font=font, anchor="lm")
    image.save(picture)
