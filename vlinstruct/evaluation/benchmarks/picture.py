"""A benchmark's picture: where it lies; it is read when it is drawn."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vlinstruct.evaluation.benchmarks.record import Record, bad_annotation
from vlinstruct.media.images import check_image_header, load_image

Draw = Callable[[], Image.Image]
"""Gives a picture when it is called."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture in a file; called, it gives the picture.

    Args:
        path: the file.
    """

    path: Path

    def __call__(self) -> Image.Image:
        """Reads the picture.

        Raises:
            ImageError: it cannot be read.
        """
        return load_image(self.path).image

    @property
    def place(self) -> str:
        """What messages call it."""
        return str(self.path)

    def is_there(self) -> bool:
        """Returns whether there is such a file."""
        return self.path.is_file()

    def check(self) -> None:
        """Reads the header.

        Raises:
            ImageError: the picture could not be read.
        """
        check_image_header(self.path)


def picture(folder: Path, name: str, record: Record) -> Picture:
    """Returns the picture that a record names.

    Args:
        folder: the benchmark's, or the one of its pictures.
        name: the path from there.
        record: for messages.

    Raises:
        DataError: the path leads out of the folder, or is none.
    """
    path = os.path.normpath(name)
    if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir or "\0" in path:
        why = "its picture lies outside the benchmark's folder"
        raise bad_annotation(record.place, why, code="image_outside")
    return Picture(path=folder / path)
