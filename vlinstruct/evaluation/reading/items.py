"""From a record to an item: its picture, its canonical words, its options or answers, and an id that no other has.

A picture is opened when its item is answered, not when the annotations are read: a benchmark has thousands.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from vlinstruct.errors import DataError, shortened
from vlinstruct.evaluation.benchmark import Item, Task
from vlinstruct.evaluation.reading.annotations import Record
from vlinstruct.files import leads_out
from vlinstruct.instruction.templates import fill
from vlinstruct.media.images import DEFAULT_LIMITS, ImageLimits, check_image_header, read_image
from vlinstruct.records.lines import path_inside
from vlinstruct.text import check_instruction

_NUM_ANSWERS = 10
LETTERED = "{lettered_options}"
"""Where an instruction for chat models has an item's candidates."""
LoadPicture = Callable[[], Image.Image]
"""Gives a picture when it is called."""


@dataclass(frozen=True, kw_only=True)
class LimitedPicture:
    """A picture that is read when it is needed.

    Args:
        limits: how large it may be, and how whole it must be.
    """

    limits: ImageLimits = DEFAULT_LIMITS


def with_limits(load_picture: LoadPicture, limits: ImageLimits) -> LoadPicture:
    """Returns what gives the same picture within other limits; one that is drawn has none."""
    return replace(load_picture, limits=limits) if isinstance(load_picture, LimitedPicture) else load_picture


@dataclass(frozen=True, kw_only=True)
class PictureFile(LimitedPicture):
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
        return read_image(self.path, limits=self.limits)

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
        check_image_header(self.path, limits=self.limits)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What an item has in the place of its picture where its record cannot be used: the others are.

    Args:
        error: why.
    """

    error: DataError

    def __call__(self) -> Image.Image:
        """Refuses the item, as a picture that cannot be read would.

        Raises:
            DataError: always.
        """
        raise self.error


def picture(folder: Path, name: str, record: Record, *, pictures: str = "") -> PictureFile:
    """Returns the picture that a record names.

    Args:
        folder: the benchmark's, or the one of its pictures; it may be a link.
        name: the path from there.
        record: for messages.
        pictures: the folder in that one which the names begin with; it may be a link, too.

    Raises:
        DataError: the path leads out of the folder, or is none.
    """
    path = path_inside(folder, name)
    # Annotations come from elsewhere: "../../" in one, or a link beside it, must not open a file of the user's.
    if path is None or (leads_out(path, folder) and (not pictures or leads_out(path, folder / pictures))):
        raise record.error("its picture lies outside the benchmark's folder", code="image_outside")
    return PictureFile(path=path)


class ItemMaker:
    """Makes the items of one benchmark.

    Args:
        task: the benchmark's.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._first: dict[str, str] = {}

    def item(
        self,
        name: str,
        record: Record,
        *,
        instruction: str,
        fields: Mapping[str, str],
        load_picture: LoadPicture,
        references: Sequence[str] = (),
        candidates: Sequence[str] = (),
        target: int | None = None,
        num_ocr_tokens: int | None = None,
    ) -> Item:
        """Returns an item.

        Args:
            name: its record's id.
            record: for messages.
            instruction: how it is asked, with fields in braces.
            fields: their values, and those of what chat models are asked.
            load_picture: gives its picture.
            references: right answers, as the metric needs them; the right candidate where there is a target.
            candidates: what is ranked.
            target: the place of the right candidate, which may have the words of another one.
            num_ocr_tokens: how many OCR tokens the instruction shows; None where that has no place for any.

        Raises:
            DataError: another record has this id, or it is no id.
            TextError: nobody can be asked this instruction.
        """
        shown_name = shortened(name, 40)
        if "/" in name:  # records are named model/words/item
            raise record.error(f"its id '{shown_name}' holds a slash")
        if name in self._first:  # two items under one id would take each other's record for theirs
            why = f"its id '{shown_name}' is that of {self._first[name]} too"
            raise record.error(why, code="duplicate_ids")
        self._first[name] = record.label
        return Item(
            id=f"{self._task.name}-{name}",
            task=self._task.name,
            load_picture=load_picture,
            instructions={"canonical": check_instruction(fill(instruction, **fields), what=record.place)},
            references=tuple(references) if target is None else (candidates[target],),
            candidates=tuple(candidates),
            target=target,
            num_ocr_tokens=num_ocr_tokens,
            fields=fields,
        )


def for_chat(item: Item, instruction: str) -> Item:
    """Returns an item as chat models are asked it: where the instruction has options, their letters are ranked.

    Args:
        item: a benchmark's.
        instruction: the benchmark's for chat models.
    """
    letters = string.ascii_uppercase[: len(item.candidates)] if LETTERED in instruction else ""
    lines = [f"{letter}. {choice}" for letter, choice in zip(letters, item.candidates, strict=False)]
    text = fill(instruction, **item.fields, lettered_options="\n".join(lines))
    item = replace(item, instructions={"canonical": check_instruction(text, what=item.id)})
    if not letters:
        return item
    references = item.references if item.target is None else (letters[item.target],)
    return replace(item, candidates=tuple(letters), references=references)


def options(choices: Sequence[str]) -> str:
    """Writes options as the paper does (appendix C.2).

    >>> options(["apple", "banana"])
    '(a) apple (b) banana'
    """
    return " ".join(f"({letter}) {choice}" for letter, choice in zip(string.ascii_lowercase, choices, strict=False))


def choices_of(record: Record) -> tuple[str, ...]:
    """Returns the field `choices`: two texts at least, as many as there are letters at most.

    Raises:
        DataError: it is anything else.
    """
    choices = record.texts("choices")
    if not 2 <= len(choices) <= len(string.ascii_lowercase) or not all(choices):
        why = f"field 'choices' holds no 2 to {len(string.ascii_lowercase)} texts"
        raise record.error(why)
    return choices


def ten_answers(answers: Sequence[str], record: Record) -> Sequence[str]:
    """Returns a question's answers, which must be those of ten people (VQA accuracy).

    Raises:
        DataError: there are more or fewer.
    """
    if len(answers) != _NUM_ANSWERS:
        raise record.error(f"field 'answers' holds {len(answers)} answers, not {_NUM_ANSWERS}")
    return answers
