"""What a record of training data asks to learn: its id, its picture and what was said about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vlinstruct.errors import DataError
from vlinstruct.media.fetch import Url
from vlinstruct.records.lines import ItemOptions, bad_record, image_place, record_id, text_field
from vlinstruct.training.data.image_folder import image_field, with_caption_asked_for
from vlinstruct.training.data.record_ids import RecordIds
from vlinstruct.training.data.records import TrainingRecord
from vlinstruct.training.data.turns import Turns, turns_of

# `finetune` has no options that would allow these.
_REFUSED = {
    "image_outside": ("its image lies outside the image folder", "Move it there, and write its path from there on"),
    "url_refused": ("its image is a URL", "Download it, and name the file"),
}

Fields = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """One record that can be used.

    Args:
        name: its id, or its label in the file with a hyphen: `line-7`.
        image: the picture's file.
        turns: questions with their answers, at least one.
    """

    name: str
    image: Path
    turns: Turns


def task_of(record: TrainingRecord, root: str, ids: RecordIds) -> TrainingTask:
    """Reads a record and notes its id.

    Args:
        record: any.
        root: the folder that image paths start from.
        ids: gets the id.

    Raises:
        DataError or TextError: the record cannot be used.
    """
    fields = record.fields()
    task = TrainingTask(
        name=name_of(fields, record), image=image_of(fields, record, root), turns=said_in(fields, record)
    )
    add_id(ids, fields, record, task.name, task.image)
    return task


def name_of(fields: Fields, record: TrainingRecord) -> str:
    """Returns a record's id, or what stands in for it."""
    return str(record_id(fields, record.place, record.label.replace(" ", "-")))


def image_of(fields: Fields, record: TrainingRecord, root: str) -> Path:
    """Returns the path of a record's picture, which may not lead out of the root."""
    try:
        image = image_place(_named_image(fields, record), record.place, root, ItemOptions())
    except DataError as error:
        if error.code not in _REFUSED:
            raise
        raise bad_record(record.place, error.code, *_REFUSED[error.code]) from error
    assert not isinstance(image, Url)
    return image


def said_in(fields: Fields, record: TrainingRecord) -> Turns:
    """Returns a record's questions with their answers."""
    return turns_of(with_caption_asked_for(fields, record.place) if record.is_metadata else fields, record.place)


def add_id(ids: RecordIds, fields: Fields, record: TrainingRecord, name: str, image: Path | None) -> str | None:
    """Notes a record's id; returns the label of the record that has it already."""
    return ids.add(name, image=image, record=record.label, is_image_id="conversations" in fields)


def _named_image(fields: Mapping[str, object], record: TrainingRecord) -> str:
    images = fields.get("images")
    if "image" not in fields and isinstance(images, list):
        if len(images) != 1 or not isinstance(images[0], str):
            raise bad_record(record.place, "bad_field", f"one picture is expected in 'images', got {len(images)}")
        return images[0]
    return text_field(dict(fields), image_field(fields) if record.is_metadata else "image", record.place)
