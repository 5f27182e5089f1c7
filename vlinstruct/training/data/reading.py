"""Reads one record of training data whole: its id, its picture, what was said; and counts what was read otherwise."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from PIL import Image

from vlinstruct.errors import DataError, InputError
from vlinstruct.files import file_sha256
from vlinstruct.media.fetch import Url
from vlinstruct.media.images import DEFAULT_LIMITS, ImageLimits, read_image
from vlinstruct.records.columns import Columns, require_names
from vlinstruct.records.input import UnreadRecord
from vlinstruct.records.lines import ItemOptions, UserRecord
from vlinstruct.records.pictures import no_picture, picture_of
from vlinstruct.records.tables import TablePicture
from vlinstruct.training.data.fields import CAPTION_INSTRUCTION, Change, Said

RECORD_FIELDS = ("image", "question", "answer", "id")
TrainingPicture = Path | TablePicture

_NOTICES: Mapping[Change, str] = {
    "system": "the system turn is left out, the model reads none",
    "answers": "of several answers the most frequent one is learned, of equals the first",
    "numbers": "the answer is a number and is learned as its text, 3.0 as 3",
    "mark": "<image> stands in a plain question and stays there as text",
}


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How training data are read that are not quite as we write them.

    Args:
        columns: which field of the file is meant by `image`, `question`, `answer` or `id`.
        allow_outside: accept paths that lead out of the images' folder, also through a link.
        skip_text_only: leave out records without a picture.

    Raises:
        UsageError: `columns` names another field.
    """

    columns: Columns = field(default_factory=dict)
    allow_outside: bool = False
    skip_text_only: bool = False

    def __post_init__(self) -> None:
        require_names(self.columns, RECORD_FIELDS)


def training_picture(
    record: UserRecord, root: str, options: DataOptions, *, is_metadata: bool
) -> TrainingPicture | None:
    """Returns a record's picture; None where it names none.

    Raises:
        DataError: it names several, or one that cannot be used.
    """
    try:
        picture = picture_of(record, root, ItemOptions(allow_outside=options.allow_outside), is_metadata=is_metadata)
    except DataError as error:
        if error.code != "url_refused" or "--allow-urls" not in error.advice:
            raise
        # A training reads its pictures again and again: they are to lie on this disk.
        raise record.error("its image is a URL", code=error.code, advice="Download it, and name the file") from error
    assert not isinstance(picture, Url)
    return picture


def load_picture(picture: TrainingPicture, *, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Reads a picture from its file or its table.

    Args:
        picture: where it is.
        limits: how large it may be, and how whole it must be.

    Raises:
        ImageError: it cannot be read.
        DataError: the table is damaged there.
    """
    if isinstance(picture, Path):
        return read_image(picture, limits=limits)
    return read_image(picture.content(), name=picture.place, limits=limits)


def picture_sha256(picture: TrainingPicture) -> str | None:
    """Returns a picture's checksum; None of one that cannot be read."""
    try:
        if isinstance(picture, Path):
            return file_sha256(picture, kind="image")
        return hashlib.sha256(picture.content()).hexdigest()
    except InputError:
        return None


def text_only(record: UnreadRecord, fields: UserRecord) -> DataError:
    """Returns the error of a record without a picture."""
    advice = "Add it, or skip records without a picture with --skip-text-only"
    return no_picture(fields, is_metadata=record.is_metadata, advice=advice)


class Tally:
    """Counts the records that were read: of which forms they are, and what was read otherwise than it stands there."""

    def __init__(self) -> None:
        self.num_records = 0
        self.num_text_only = 0
        self.forms: Counter[str] = Counter()
        self._changes: Counter[Change] = Counter()

    def add(self, said: Said) -> None:
        """Counts what a record says."""
        self.forms[said.form] += 1
        self._changes.update(said.changes)

    def notices(self, file: str, *, is_text_only_left_out: bool) -> Iterator[str]:
        """Yields a line for everything that was read otherwise in a file."""
        among = f"of {self.num_records:,} records in {file}"
        if self.num_text_only and is_text_only_left_out:
            yield f"{self.num_text_only:,} {among}: no picture, left out"
        for change in get_args(Change):
            if count := self._changes[change]:
                yield f"{count:,} {among}: {_NOTICES[change]}"

    def described_forms(self) -> str:
        """Returns the forms of all records, with counts where there are several."""
        if list(self.forms) == ["captions"]:
            return f"captions, learned as answers to '{CAPTION_INSTRUCTION}'"
        several = len(self.forms) > 1
        return ", ".join(f"{count:,} of {form}" if several else form for form, count in self.forms.most_common())
