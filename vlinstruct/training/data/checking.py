"""Says everything that is wrong with training data before a model is loaded, and what the data are where nothing is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from vlinstruct.errors import InputError, VlinstructError, shortened
from vlinstruct.files import PathLike
from vlinstruct.media.images import DEFAULT_LIMITS, ImageLimits, check_image_header, image_format_of
from vlinstruct.records.input import UnreadRecord, data_file, root_of, unread_records
from vlinstruct.training.data.conversations import DEFAULT_DATA_OPTIONS
from vlinstruct.training.data.fields import said_in
from vlinstruct.training.data.ids import RecordIds, name_of
from vlinstruct.training.data.reading import (
    DataOptions,
    Tally,
    TrainingPicture,
    load_picture,
    text_only,
    training_picture,
)

Part = TypeVar("Part")

_MAX_WHY_CHARACTERS = 180
_HEAD_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class DataProblem:
    """What is wrong with a record.

    Args:
        record: what it is called in its file.
        why: what is wrong, without the picture's name: equal problems of several records have equal words.
        advice: what to do about it.
        message: the whole line.
        place: the picture's name, if the problem is a picture's.
        code: the error's.
    """

    record: str
    why: str
    advice: str
    message: str
    place: str = ""
    code: str = ""


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What is in a file of training data.

    Args:
        file: which one.
        problems: what is wrong, record by record.
        tally: how many records there are, and of which forms.
        num_pictures: how many pictures they name.
    """

    file: str
    problems: Sequence[DataProblem] = field(default_factory=list)
    tally: Tally
    num_pictures: int


def check_data(
    path: PathLike,
    *,
    image_root: PathLike | None,
    options: DataOptions = DEFAULT_DATA_OPTIONS,
    decode: bool = False,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> DataReport:
    """Looks at all records and pictures.

    Args:
        path: what `read_conversations` takes.
        image_root: as there.
        options: as there.
        decode: read every picture whole; otherwise of a file its header, of a table's picture its first bytes.
        limits: how large a picture may be, and how whole it must be.

    Raises:
        DataError: the file itself cannot be used.
        ResourceError: it is parquet or Arrow, and the library that reads them is not installed.
    """
    file = data_file(path)
    check = _RecordCheck(root_of(file, image_root), options, decode=decode, limits=limits)
    problems = [
        problem for record in unread_records(file, columns=options.columns) for problem in check.problems(record)
    ]
    return DataReport(file=file, problems=problems, tally=check.tally, num_pictures=len(check.pictures))


class _RecordCheck:
    """Checks records of one file: each by itself, and their ids against each other.

    Args:
        root: the folder that image paths start from.
        options: how records are read.
        decode: read every picture whole.
        limits: how large a picture may be, and how whole it must be.
    """

    def __init__(self, root: str, options: DataOptions, *, decode: bool, limits: ImageLimits) -> None:
        self._root, self._options = root, options
        self._ids = RecordIds()
        self._picture_problem = cache(partial(_picture_problem, decode=decode, limits=limits))
        self.tally = Tally()
        self.pictures: set[TrainingPicture] = set()

    def problems(self, record: UnreadRecord) -> list[DataProblem]:
        """Returns what is wrong with a record's id, picture and text, a line each; of a text the first problem."""
        problems: list[DataProblem] = []
        self.tally.num_records += 1
        fields = _attempt(record.read, record, problems)
        if fields is None:
            return problems
        name = _attempt(partial(name_of, fields), record, problems)
        num_problems = len(problems)
        reader = partial(training_picture, fields, self._root, self._options, is_metadata=record.is_metadata)
        picture = _attempt(reader, record, problems)
        if picture is None and len(problems) == num_problems:
            self.tally.num_text_only += 1
            if self._options.skip_text_only:
                return problems
            problems.append(_problem(record, text_only(record, fields)))
        if said := _attempt(partial(said_in, fields, is_caption=record.is_caption), record, problems):
            self.tally.add(said)
        if name is not None and (first := self._ids.add(fields, name, picture)):
            why = f"its id '{shortened(name, 40)}' is that of {first} too"
            problems.append(_problem(record, fields.error(why, advice="Give it another")))
        if picture is not None:
            self.pictures.add(picture)
            if error := self._picture_problem(picture):
                why = shortened(error.problem, _MAX_WHY_CHARACTERS)
                told = fields.error(why, advice=error.advice, code=error.code)
                problems.append(_problem(record, told, error, place=str(picture)))
        return problems


def _attempt(read: Callable[[], Part], record: UnreadRecord, problems: list[DataProblem]) -> Part | None:
    """Returns what is read, or notes why it cannot be."""
    try:
        return read()
    except InputError as error:
        problems.append(_problem(record, error))
        return None


def _problem(
    record: UnreadRecord, told: VlinstructError, error: VlinstructError | None = None, *, place: str = ""
) -> DataProblem:
    """Returns a problem; its reason is what stands behind the place in the error's message."""
    cause = error or told
    why = cause.problem.rpartition("): ")[2]
    return DataProblem(
        record=record.label, why=why, advice=cause.advice, message=told.message, place=place, code=cause.code
    )


def _picture_problem(picture: TrainingPicture, *, decode: bool, limits: ImageLimits) -> InputError | None:
    try:
        if decode:
            load_picture(picture, limits=limits)
        elif isinstance(picture, Path):
            check_image_header(picture, limits=limits)
        else:
            image_format_of(picture.content()[:_HEAD_BYTES], picture.place)
    except InputError as error:  # a picture's, or a damaged table's
        return error
    return None
