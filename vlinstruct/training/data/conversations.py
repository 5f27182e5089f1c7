"""Reads training data: instructions about pictures with their answers, in the formats that people have.

    {"id", "image", "instruction" or "question", "answer"}                                  one JSON line each
    {"id", "image", "conversations": [{"from": "human" | "gpt", "value"}]}                  LLaVA, a JSON list or lines
    {"id", "image" or "images", "messages": [{"role": "user" | "assistant", "content"}]}    OpenAI, Hugging Face
    Alpaca, ms-swift, TRL, LAVIS, VQA's answers, captions                                   see fields.py
    a folder with its metadata, a CSV, parquet or Arrow table, COCO's captions              see records/input.py

Earlier turns are put before the last question, spelled "Question:" and "Answer:".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlinstruct.backends.instructblip.conversation import prompt_of
from vlinstruct.errors import MAX_MESSAGE_CHARACTERS, DataError, ImageError, InputError, shortened
from vlinstruct.files import PathLike
from vlinstruct.media.images import ImageLimits, check_image_header
from vlinstruct.records.input import data_file, root_of, unread_records
from vlinstruct.training.data.fields import Turns, said_in
from vlinstruct.training.data.ids import RecordIds, name_of
from vlinstruct.training.data.reading import (
    DataOptions,
    Tally,
    TrainingPicture,
    text_only,
    training_picture,
)

Answers = Literal["last", "all"]
DEFAULT_DATA_OPTIONS = DataOptions()


@dataclass(frozen=True, kw_only=True)
class TrainingSample:
    """One answer to learn.

    Args:
        id: the record's, or its line's; with the turn's number where all turns are learned.
        image: the picture's file, or its place in a table that holds it.
        instruction: what the Q-Former reads: the last question.
        prompt: what the language model reads: earlier turns and the last question.
        answer: what it shall write.
    """

    id: str
    image: TrainingPicture
    instruction: str
    prompt: str
    answer: str


def read_conversations(
    path: PathLike,
    *,
    image_root: PathLike | None,
    answers: Answers = "last",
    options: DataOptions = DEFAULT_DATA_OPTIONS,
    notify: Callable[[str], None] = lambda notice: None,
) -> list[TrainingSample]:
    """Reads all samples.

    Args:
        path: JSON lines, one JSON list, a CSV, parquet or Arrow table, or a folder with its metadata.
        image_root: the folder that image paths start from; None is the folder of the file that is read.
        answers: whether the last answer of a conversation is learned, or all of them, a sample each.
        options: what is read otherwise than we would write it.
        notify: is told what was left out or read otherwise than it stands there, with counts.

    Raises:
        DataError: the file or one of its records cannot be used (the first bad record is named, with the count), or
            records share an id (`duplicate_ids`).
        ResourceError: it is parquet or Arrow, and the library that reads them is not installed.
    """
    file = data_file(path)
    root = root_of(file, image_root)
    samples: list[TrainingSample] = []
    ids, tally = RecordIds(), Tally()
    errors: list[InputError] = []
    without_picture: DataError | None = None  # the first such record's; they are counted apart
    for record in unread_records(file, columns=options.columns):
        tally.num_records += 1
        try:
            fields = record.read()
            picture = training_picture(fields, root, options, is_metadata=record.is_metadata)
            if picture is None:
                tally.num_text_only += 1
                without_picture = without_picture or text_only(record, fields)
                continue
            said = said_in(fields, is_caption=record.is_caption)
            ids.add(fields, name := name_of(fields), picture)
            tally.add(said)
            samples.extend(_samples(name, picture, said.turns, answers))
        except InputError as error:
            errors.append(error)
    _refuse_bad(errors, tally.num_records)
    if without_picture is not None and not (options.skip_text_only and samples):
        raise _text_only_error(without_picture, tally, file)
    ids.refuse_repeated(file)
    for notice in tally.notices(file, is_text_only_left_out=True):
        notify(notice)
    return samples


def _refuse_bad(errors: Sequence[InputError], num_records: int) -> None:
    if not errors:
        return
    first = errors[0]
    more = f" ({len(errors):,} bad records in all: --check-data lists them)" if len(errors) > 1 else ""
    message = shortened(first.message, MAX_MESSAGE_CHARACTERS - len(more)) + more
    raise DataError(message, code=first.code)


def _text_only_error(first: DataError, tally: Tally, file: str) -> DataError:
    """Returns the error of records without a picture: the one's own, or one for all of them."""
    if tally.num_text_only == 1:
        return first
    if tally.num_text_only == tally.num_records:
        # None of them has one: more likely it is called otherwise, which the first record's own advice may tell.
        why = f"none of its {tally.num_records:,} records has a picture"
        advice = first.advice if "--columns" in first.advice else "Say which field it is: --columns image=NAME"
    else:
        why = f"{tally.num_text_only:,} of {tally.num_records:,} records have no picture"
        advice = "Skip them with --skip-text-only"
    return DataError.at("cannot read data", file, why, advice, code="missing_field")


def _samples(name: str, picture: TrainingPicture, turns: Turns, answers: Answers) -> list[TrainingSample]:
    learned = range(len(turns)) if answers == "all" else [len(turns) - 1]
    return [
        TrainingSample(
            id=f"{name}#{turn + 1}" if len(learned) > 1 else name,
            image=picture,
            instruction=turns[turn][0],
            prompt=prompt_of(turns[: turn + 1]),
            answer=turns[turn][1],
        )
        for turn in learned
    ]


def require_pictures(samples: Iterable[TrainingSample], *, limits: ImageLimits, num_skipped: int, advice: str) -> None:
    """Reads the headers of a set's pictures, before anything is computed of the first; tables hold theirs.

    Args:
        samples: a set.
        limits: how large a picture may be.
        num_skipped: so many pictures may be left out.
        advice: what to do where all of them are missing.

    Raises:
        ImageError: more of them cannot be read; the first is named, with the count.
    """
    pictures = dict.fromkeys(sample.image for sample in samples if isinstance(sample.image, Path))
    errors: list[ImageError] = []
    for picture in pictures:
        assert isinstance(picture, Path)
        try:
            check_image_header(picture, limits=limits)
        except ImageError as error:
            errors.append(error)
    if len(errors) <= num_skipped:
        return
    if len(errors) == 1:
        raise errors[0]
    first = errors[0]
    are_all = len(errors) == len(pictures) and all(error.code == "image_missing" for error in errors)
    more = f" ({len(errors):,} of {len(pictures):,} pictures cannot be read: --check-data lists them)"
    told = f"{first.problem}{more}. {advice if are_all else first.advice}"
    if len(told) > MAX_MESSAGE_CHARACTERS:
        told = shortened(first.problem, MAX_MESSAGE_CHARACTERS - len(more)) + more
    raise ImageError(told, code=first.code)
