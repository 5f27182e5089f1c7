"""Looks for all that is wrong with records of training data, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from vlinstruct.errors import DataError, ImageError, InputError, shortened
from vlinstruct.media.images import check_image_header
from vlinstruct.training.data.record_ids import RecordIds
from vlinstruct.training.data.records import TrainingRecord
from vlinstruct.training.data.task import Fields, add_id, image_of, name_of, said_in

_MAX_WHY_CHARACTERS = 180

Part = TypeVar("Part")


class RecordCheck:
    """Checks records of one file: each by itself, and their ids against each other.

    Args:
        root: the folder that image paths start from.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._ids = RecordIds()
        self._picture_problem = cache(_picture_problem)

    def problems(self, record: TrainingRecord) -> Iterator[str]:
        """Yields what is wrong with a record's id, picture and text, a line each; of a text the first problem."""
        found: list[str] = []
        fields = _attempt(record.fields, found)
        if fields is not None:
            self._check_fields(fields, record, found)
        yield from found

    def _check_fields(self, fields: Fields, record: TrainingRecord, found: list[str]) -> None:
        name = _attempt(partial(name_of, fields, record), found)
        image = _attempt(partial(image_of, fields, record, self._root), found)
        _attempt(partial(said_in, fields, record), found)
        if name is not None and (first := add_id(self._ids, fields, record, name, image)):
            why = f"its id '{shortened(name, 40)}' is that of {first} too"
            found.append(DataError.at("cannot use item", record.place, why, "Give it another").message)
        if image is not None and (error := self._picture_problem(image)):
            why = shortened(error.problem, _MAX_WHY_CHARACTERS)
            found.append(DataError.at("cannot use item", record.place, why, error.advice).message)


def _attempt(read: Callable[[], Part], found: list[str]) -> Part | None:
    """Returns what is read, or notes why it cannot be."""
    try:
        return read()
    except InputError as error:
        found.append(error.message)
        return None


def _picture_problem(image: Path) -> ImageError | None:
    try:
        check_image_header(image)
    except ImageError as error:
        return error
    return None
