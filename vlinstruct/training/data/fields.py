"""Reads the fields of a record of training data: its id, its picture and what was said about it.

What was said is `conversations` (LLaVA), `messages` (ShareGPT, Hugging Face), or one `instruction` or `question` with
its `answer`. Of an image folder's metadata, `text` or `caption` alone is a caption: the answer to the paper's
instruction for captions (section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlinstruct.errors import DataError, shortened
from vlinstruct.media.fetch import Url
from vlinstruct.records.lines import ItemOptions, UserRecord
from vlinstruct.text import check_instruction

CAPTION_INSTRUCTION = "A short image description:"
_CAPTIONS = ("text", "caption")
_QUESTION_FIELDS = ("instruction", "question", "answer")
_USER, _ASSISTANT = ("human", "user"), ("gpt", "assistant")
_MARK = "<image>"  # LLaVA's place of the picture, which always stands in front here
_SHOWN_IDS = 5

# `finetune` has no options that would allow these.
_REFUSED = {
    "image_outside": ("its image lies outside the image folder", "Move it there, and write its path from there on"),
    "url_refused": ("its image is a URL", "Download it, and name the file"),
}

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


def conversation_of(record: UserRecord, root: str, ids: RecordIds, *, is_metadata: bool) -> TrainingConversation:
    """Reads a record and notes its id.

    Args:
        record: any.
        root: the folder that image paths start from.
        ids: gets the id.
        is_metadata: the record is an image folder's or another table's.

    Raises:
        DataError or TextError: the record cannot be used.
    """
    conversation = TrainingConversation(
        name=name_of(record),
        image=image_of(record, root, is_metadata=is_metadata),
        turns=turns_of(record, is_metadata=is_metadata),
    )
    ids.add(record, conversation.name, conversation.image)
    return conversation


def name_of(record: UserRecord) -> str:
    """Returns a record's id, or its label in the file with a hyphen."""
    return str(record.id_or(record.label.replace(" ", "-")))


def image_of(record: UserRecord, root: str, *, is_metadata: bool) -> Path:
    """Returns the path of a record's picture, which may not lead out of the root."""
    images = record.fields.get("images")
    if "image" not in record.fields and isinstance(images, list):
        if len(images) != 1 or not isinstance(images[0], str):
            raise record.error(f"one picture is expected in 'images', got {len(images)}")
        path = images[0]
    else:
        # `file_name` is Hugging Face's word in metadata; tables that people write have `image` there, too.
        is_file_name = is_metadata and not ("image" in record.fields and "file_name" not in record.fields)
        path = record.raw_text("file_name" if is_file_name else "image")
    try:
        image = record.image_place(path, root, ItemOptions())
    except DataError as error:
        if error.code not in _REFUSED:
            raise
        why, advice = _REFUSED[error.code]
        raise record.error(why, code=error.code, advice=advice) from error
    assert not isinstance(image, Url)
    return image


def turns_of(record: UserRecord, *, is_metadata: bool) -> Turns:
    """Returns a record's questions with their answers, at least one.

    Raises:
        DataError: they are missing or no text, or do not alternate.
        TextError: a model cannot be asked one of the texts.
    """
    if is_metadata:
        record = with_caption_instruction(record)
    if "conversations" in record.fields:
        return _paired(record, "conversations", "from", "value")
    if "messages" in record.fields:
        return _paired(record, "messages", "role", "content")
    if not {"instruction", "question", "answer"} & record.fields.keys():
        why, advice = "fields 'question' and 'answer' are missing", "Add them"
        raise record.error(why, code="missing_field", advice=advice)
    return [(record.question(), record.instruction("answer"))]


def with_caption_instruction(record: UserRecord) -> UserRecord:
    """Returns a metadata record; one that holds just a caption, with the instruction that it answers.

    >>> record = UserRecord(file="metadata.csv", label="line 2", fields={"caption": "a cat"})
    >>> with_caption_instruction(record).fields
    {'instruction': 'A short image description:', 'answer': 'a cat'}

    Raises:
        DataError: it has no answer and no caption, or two captions.
    """
    if any(name in record.fields for name in _QUESTION_FIELDS):
        return record
    captions = [name for name in _CAPTIONS if name in record.fields]
    if not captions:
        advice = "Add 'instruction' and 'answer', or 'caption'"
        raise record.error("it has no answer and no caption", code="missing_field", advice=advice)
    if len(captions) > 1:
        raise record.error("both 'text' and 'caption' are given", advice="Keep one of them")
    return replace(record, fields={"instruction": CAPTION_INSTRUCTION, "answer": record.raw_text(captions[0])})


def _paired(record: UserRecord, messages_field: str, role: str, content: str) -> Turns:
    """Returns the questions and answers of a list of messages, a system message in front of them left out."""
    messages = record.fields[messages_field]
    if not isinstance(messages, list) or not messages:
        raise record.error("its conversation is no list of turns")
    spoken = [_spoken(message, role, content, record) for message in messages]
    if spoken[0][0] == "system":
        spoken = spoken[1:]
    roles = [speaker for speaker, _ in spoken]
    alternate = all(speaker in (_ASSISTANT if turn % 2 else _USER) for turn, speaker in enumerate(roles))
    if not spoken or len(spoken) % 2 or not alternate:
        raise record.error("its turns do not alternate between a question and an answer")
    texts = [check_instruction(text, what=record.place) for _, text in spoken]
    return list(zip(texts[::2], texts[1::2], strict=True))


def _spoken(message: Any, role: str, content: str, record: UserRecord) -> tuple[str, str]:
    text = message.get(content) if isinstance(message, dict) else None
    if isinstance(text, list):  # Hugging Face's parts
        text = " ".join(part["text"] for part in text if isinstance(part, dict) and isinstance(part.get("text"), str))
    if not isinstance(text, str) or not isinstance(message.get(role), str):
        raise record.error(f"a turn has no text in '{role}' and '{content}'")
    return message[role], text.replace(_MARK, "").strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class _FirstUse:
    record: str
    image: Path | None


class RecordIds:
    """The ids of the records that were read so far, each with the record that used it first."""

    def __init__(self) -> None:
        self._first: dict[str, _FirstUse] = {}
        self._repeated: dict[str, None] = {}

    def add(self, record: UserRecord, name: str, image: Path | None) -> str | None:
        """Notes a record's id.

        An id in LLaVA's data is the picture's, and several conversations about one picture share it: there, only
        another picture's record repeats an id.

        Args:
            record: the record.
            name: its id.
            image: its picture; None where it names none.

        Returns:
            What the first record with this id is called, if it is a repetition.
        """
        first = self._first.setdefault(name, _FirstUse(record=record.label, image=image))
        is_image_id = "conversations" in record.fields
        if first.record == record.label or (is_image_id and first.image == image):
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
