"""Reads training data: instructions about pictures with their answers, in the formats that people have.

    {"id", "image", "instruction" or "question", "answer"}                                  one JSON line each
    {"id", "image", "conversations": [{"from": "human" | "gpt", "value"}]}                  LLaVA, a JSON list or lines
    {"id", "image" or "images", "messages": [{"role": "user" | "assistant", "content"}]}    ShareGPT, Hugging Face
    a folder with metadata.jsonl or metadata.csv, or a CSV table                            see records.py

`<image>` in a turn marks the picture's place and is taken out: the picture always stands in front. Earlier turns are
put before the last question, spelled "Question:" and "Answer:".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal, TypeVar

from vlinstruct.backends.instructblip.conversation import prompt_of
from vlinstruct.errors import MAX_MESSAGE_CHARACTERS, DataError, ImageError, InputError, shortened
from vlinstruct.files import PathLike
from vlinstruct.media.images import check_image_header
from vlinstruct.training.data.fields import (
    RecordIds,
    TrainingConversation,
    conversation_of,
    image_of,
    name_of,
    turns_of,
)
from vlinstruct.training.data.records import TrainingRecord, data_file, training_records

Answers = Literal["last", "all"]
Part = TypeVar("Part")

_MAX_WHY_CHARACTERS = 180


@dataclass(frozen=True, kw_only=True)
class TrainingSample:
    """One answer to learn.

    Args:
        id: the record's, or its line's; with the turn's number where all turns are learned.
        image: the picture's file.
        instruction: what the Q-Former reads: the last question.
        prompt: what the language model reads: earlier turns and the last question.
        answer: what it shall write.
    """

    id: str
    image: Path
    instruction: str
    prompt: str
    answer: str


def read_conversations(
    path: PathLike, *, image_root: PathLike | None, answers: Answers = "last"
) -> list[TrainingSample]:
    """Reads all samples.

    Args:
        path: JSON lines, one JSON list, a CSV table, or a folder with its metadata.
        image_root: the folder that image paths start from; None is the folder of the file that is read.
        answers: whether the last answer of a conversation is learned, or all of them, a sample each.

    Raises:
        DataError: the file or one of its records cannot be used (the first bad record is named, with the count), or
            records share an id (`duplicate_ids`).
    """
    file = data_file(path)
    root = _root(file, image_root)
    samples: list[TrainingSample] = []
    ids = RecordIds()
    first_error, num_bad = None, 0
    for record in training_records(file):
        try:
            conversation = conversation_of(record.read(), root, ids, is_metadata=record.is_metadata)
            samples.extend(_samples(conversation, answers))
        except InputError as error:
            first_error, num_bad = first_error or error, num_bad + 1
    if first_error is not None:
        more = f" ({num_bad:,} bad records in all: --check-data lists them)" if num_bad > 1 else ""
        message = shortened(first_error.message, MAX_MESSAGE_CHARACTERS - len(more)) + more
        raise DataError(message, code=first_error.code)
    ids.refuse_repeated(file)
    return samples


def problems_of(path: PathLike, *, image_root: PathLike | None) -> Iterator[str]:
    """Yields what is wrong with the records, a line each; of every picture the header is read, nothing is decoded.

    Args:
        path: JSON lines, one JSON list, a CSV table, or a folder with its metadata.
        image_root: the folder that image paths start from; None is the folder of the file that is read.

    Raises:
        DataError: the file itself cannot be used.
    """
    file = data_file(path)
    check = _RecordCheck(_root(file, image_root))
    for record in training_records(file):
        yield from check.problems(record)


def _root(file: str, image_root: PathLike | None) -> str:
    return os.fspath(image_root) if image_root is not None else os.path.dirname(file)


def _samples(conversation: TrainingConversation, answers: Answers) -> list[TrainingSample]:
    turns = conversation.turns
    learned = range(len(turns)) if answers == "all" else [len(turns) - 1]
    return [
        TrainingSample(
            id=f"{conversation.name}#{turn + 1}" if len(learned) > 1 else conversation.name,
            image=conversation.image,
            instruction=turns[turn][0],
            prompt=prompt_of(turns[: turn + 1]),
            answer=turns[turn][1],
        )
        for turn in learned
    ]


class _RecordCheck:
    """Checks records of one file: each by itself, and their ids against each other.

    Args:
        root: the folder that image paths start from.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._ids = RecordIds()
        self._picture_problem = cache(_picture_problem)

    def problems(self, record: TrainingRecord) -> list[str]:
        """Returns what is wrong with a record's id, picture and text, a line each; of a text the first problem."""
        problems: list[str] = []
        fields = _attempt(record.read, problems)
        if fields is None:
            return problems
        name = _attempt(partial(name_of, fields), problems)
        image = _attempt(partial(image_of, fields, self._root, is_metadata=record.is_metadata), problems)
        _attempt(partial(turns_of, fields, is_metadata=record.is_metadata), problems)
        if name is not None and (first := self._ids.add(fields, name, image)):
            why = f"its id '{shortened(name, 40)}' is that of {first} too"
            problems.append(fields.error(why, advice="Give it another").message)
        if image is not None and (error := self._picture_problem(image)):
            why = shortened(error.problem, _MAX_WHY_CHARACTERS)
            problems.append(fields.error(why, advice=error.advice).message)
        return problems


def _attempt(read: Callable[[], Part], problems: list[str]) -> Part | None:
    """Returns what is read, or notes why it cannot be."""
    try:
        return read()
    except InputError as error:
        problems.append(error.message)
        return None


def _picture_problem(image: Path) -> ImageError | None:
    try:
        check_image_header(image)
    except ImageError as error:
        return error
    return None
