"""A benchmark's picture: where it lies; it is opened when its item is answered, not when the annotations are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vlinstruct.evaluation.reading.annotations import Record
from vlinstruct.media.image_header import check_image_header
from vlinstruct.media.images import load_image
from vlinstruct.media.inputs import path_inside

LoadPicture = Callable[[], Image.Image]
"""Gives a picture when it is called."""


@dataclass(frozen=True, kw_only=True)
class PictureFile:
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


def picture(folder: Path, name: str, record: Record) -> PictureFile:
    """Returns the picture that a record names.

    Args:
        folder: the benchmark's, or the one of its pictures.
        name: the path from there.
        record: for messages.

    Raises:
        DataError: the path leads out of the folder, or is none.
    """
    path = path_inside(folder, name)
    if path is None:
        raise record.error("its picture lies outside the benchmark's folder", code="image_outside")
    return PictureFile(path=path)
