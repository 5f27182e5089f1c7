"""Reads the fields of a record of training data: its id, its picture and what was said about it.

What was said is `conversations` (LLaVA), `messages` (ShareGPT, Hugging Face), or one `instruction` or `question` with
its `answer`. Of an image folder's metadata, `text` or `caption` alone is a caption: the answer to the paper's
instruction for captions (section 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlinstruct.errors import DataError, shortened
from vlinstruct.media.fetch import Url
from vlinstruct.records.lines import ItemOptions, bad_record, image_place, record_id, text_field
from vlinstruct.text import check_instruction
from vlinstruct.training.data.records import TrainingRecord

CAPTION_INSTRUCTION = "A short image description:"
_CAPTIONS = ("text", "caption")
_QUESTION_FIELDS = ("instruction", "question", "answer")
_USER, _ASSISTANT = ("human", "user"), ("gpt", "assistant")
_MARK = "<image>"
_SHOWN_IDS = 5

# `finetune` has no options that would allow these.
_REFUSED = {
    "image_outside": ("its image lies outside the image folder", "Move it there, and write its path from there on"),
    "url_refused": ("its image is a URL", "Download it, and name the file"),
}

Fields = dict[str, object]
Turns = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class TrainingConversation:
    """One record that can be used.

    Args:
        name: its id, or its label in the file with a hyphen: `line-7`.
        image: the picture's file.
        turns: questions with their answers, at least one.
    """

    name: str
    image: Path
    turns: Turns


def conversation_of(record: TrainingRecord, root: str, ids: RecordIds) -> TrainingConversation:
    """Reads a record and notes its id.

    Args:
        record: any.
        root: the folder that image paths start from.
        ids: gets the id.

    Raises:
        DataError or TextError: the record cannot be used.
    """
    fields = record.fields()
    conversation = TrainingConversation(
        name=name_of(fields, record), image=image_of(fields, record, root), turns=turns_of(fields, record)
    )
    add_id(ids, fields, record, conversation.name, conversation.image)
    return conversation


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


def turns_of(fields: Fields, record: TrainingRecord) -> Turns:
    """Returns a record's questions with their answers, at least one.

    Raises:
        DataError: they are missing or no text, or do not alternate.
        TextError: a model cannot be asked one of the texts.
    """
    place = record.place
    if record.is_metadata:
        fields = with_caption_instruction(fields, place)
    if "conversations" in fields:
        return _paired(fields["conversations"], "from", "value", place)
    if "messages" in fields:
        return _paired(fields["messages"], "role", "content", place)
    return [_one_question(fields, place)]


def add_id(ids: RecordIds, fields: Fields, record: TrainingRecord, name: str, image: Path | None) -> str | None:
    """Notes a record's id; returns the label of the record that has it already."""
    return ids.add(name, image=image, record=record.label, is_image_id="conversations" in fields)


def with_caption_instruction(record: Mapping[str, object], place: str) -> dict[str, object]:
    """Returns a metadata record, one that holds just a caption with the instruction that it answers.

    >>> with_caption_instruction({"caption": "a cat"}, "metadata.csv line 2")
    {'instruction': 'A short image description:', 'answer': 'a cat'}

    Raises:
        DataError: it has no answer and no caption, or two captions.
    """
    if any(name in record for name in _QUESTION_FIELDS):
        return dict(record)
    captions = [name for name in _CAPTIONS if name in record]
    if not captions:
        why, advice = "it has no answer and no caption", "Add 'instruction' and 'answer', or 'caption'"
        raise bad_record(place, "missing_field", why, advice)
    if len(captions) > 1:
        raise bad_record(place, "bad_field", "both 'text' and 'caption' are given", "Keep one of them")
    return {"instruction": CAPTION_INSTRUCTION, "answer": text_field(dict(record), captions[0], place)}


def _named_image(fields: Mapping[str, object], record: TrainingRecord) -> str:
    images = fields.get("images")
    if "image" not in fields and isinstance(images, list):
        if len(images) != 1 or not isinstance(images[0], str):
            raise bad_record(record.place, "bad_field", f"one picture is expected in 'images', got {len(images)}")
        return images[0]
    return text_field(dict(fields), _image_field(fields) if record.is_metadata else "image", record.place)


def _image_field(record: Mapping[str, object]) -> str:
    """Returns the field that names a metadata record's picture: `file_name`, or `image` where that alone is there."""
    return "image" if "image" in record and "file_name" not in record else "file_name"


def _one_question(record: Fields, place: str) -> tuple[str, str]:
    if "instruction" in record and "question" in record:
        raise bad_record(place, "bad_field", "both 'question' and 'instruction' are given", "Keep one of them")
    name = "instruction" if "instruction" in record else "question"
    if name not in record and "answer" not in record:
        raise bad_record(place, "missing_field", "fields 'question' and 'answer' are missing", "Add them")
    question = check_instruction(text_field(record, name, place), what=place)
    return question, check_instruction(text_field(record, "answer", place), what=place)


def _paired(messages: object, role: str, content: str, place: str) -> Turns:
    if not isinstance(messages, list) or not messages:
        raise bad_record(place, "bad_field", "its conversation is no list of turns")
    spoken = [_spoken(message, role, content, place) for message in messages]
    if spoken[0][0] == "system":
        spoken = spoken[1:]
    roles = [speaker for speaker, _ in spoken]
    alternate = all(speaker in (_ASSISTANT if turn % 2 else _USER) for turn, speaker in enumerate(roles))
    if not spoken or len(spoken) % 2 or not alternate:
        raise bad_record(place, "bad_field", "its turns do not alternate between a question and an answer")
    texts = [check_instruction(text, what=place) for _, text in spoken]
    return list(zip(texts[::2], texts[1::2], strict=True))


def _spoken(message: Any, role: str, content: str, place: str) -> tuple[str, str]:
    text = message.get(content) if isinstance(message, dict) else None
    if isinstance(text, list):  # Hugging Face's parts
        text = " ".join(part["text"] for part in text if isinstance(part, dict) and isinstance(part.get("text"), str))
    if not isinstance(text, str) or not isinstance(message.get(role), str):
        raise bad_record(place, "bad_field", f"a turn has no text in '{role}' and '{content}'")
    return message[role], text.replace(_MARK, "").strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class _FirstUse:
    record: str
    image: Path | None


class RecordIds:
    """The ids so far."""

    def __init__(self) -> None:
        self._first: dict[str, _FirstUse] = {}
        self._repeated: dict[str, None] = {}

    def add(self, name: str, *, image: Path | None, record: str, is_image_id: bool) -> str | None:
        """Notes a record's id.

        Args:
            name: the id.
            image: the record's picture; None where it names none.
            record: what to call the record, e.g. `line 7`.
            is_image_id: the id is the picture's, as in LLaVA's data, where several conversations about one picture
                have it; then only another picture's is a repetition.

        Returns:
            What the first record with this id is called, if it is a repetition.
        """
        first = self._first.setdefault(name, _FirstUse(record=record, image=image))
        if first.record == record or (is_image_id and first.image == image):
            return None
        self._repeated[name] = None
        return first.record

    def refuse_repeated(self, file: str) -> None:
        """Refuses a file with repeated ids.

        Raises:
            DataError: there are some (`duplicate_ids`); the first five are named.
        """
        if not self._repeated:
            return
        first = ", ".join(shortened(name, 20) for name in list(self._repeated)[:_SHOWN_IDS])
        why = f"{len(self._repeated)} ids are used twice: {first}"
        advice = "Give every record its own id, or none"
        raise DataError.at("cannot read data", file, why, advice, code="duplicate_ids")
