"""Conversations in a file: JSON lines, each a turn in the form of the chat's records, with its picture's name.

    conversations -> /save FILE -> records -> /load FILE -> pictures and turns

What `chat --json` wrote is read, too: records of other schemas, and of turns that failed, are no turns and passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vlinstruct.errors import DataError, InputError, counted
from vlinstruct.files import read_regular, written_atomically
from vlinstruct.operations import turn_fields
from vlinstruct.records.foreign import is_whole
from vlinstruct.records.lines import UserRecord, numbered_lines, parse_record, require_text
from vlinstruct.records.output import check_place, json_line
from vlinstruct.values import Answer

if TYPE_CHECKING:
    from vlinstruct.chat import Chat, Turn
    from vlinstruct.operations import Fields

SCHEMA = "vlinstruct.chat/1"
_ANY_SCHEMA = "vlinstruct."
_MOST_BYTES = 10_000_000  # some 30,000 turns
_START_BYTES = 1_024


@dataclass(kw_only=True)
class Conversation:
    """A chat and what is known of it at the prompt.

    Args:
        image: the picture's name, as it was typed.
        chat: it.
        found: the instruction that `/optimize` found last; None before the first.
    """

    image: str
    chat: Chat
    found: str | None = None

    def __str__(self) -> str:
        return f"{self.image} ({counted(len(self.chat.turns), 'turn')})"


@dataclass(kw_only=True)
class SavedConversation:
    """A conversation as a file has it.

    Args:
        image: the picture's name.
        backbones: the models that answered.
        turns: its turns.
    """

    image: str
    backbones: set[str] = field(default_factory=set)
    turns: list[Turn] = field(default_factory=list)


class _TurnRecord(UserRecord):
    ACTION: ClassVar[str] = "cannot load"


def turn_record(id: str, image: str, backbone: str, fields: Fields, schema: str = SCHEMA) -> dict[str, object]:
    """Returns what is written of a turn; the backbone as it was typed, so that records name it as a batch's do."""
    return {"schema": schema, "id": id, "status": "ok", "image": image, "backbone": backbone, **fields}


def save(name: str, conversations: Iterable[Conversation], *, backbone: str, may_replace: bool) -> int:
    """Writes every turn, conversation after conversation.

    Args:
        name: the file.
        conversations: those of the chat.
        backbone: the model's name.
        may_replace: whether a file that is there may be replaced.

    Returns:
        How many turns were written.

    Raises:
        InputError: there is no turn, the file is there already, or no file can be there.
        ResourceError: it cannot be written.
    """
    lines: list[bytes] = []
    for number, conversation in enumerate(conversations, start=1):
        for turn in conversation.chat.turns:
            # Two talks may be about the same picture: the number keeps them apart.
            fields = {**turn_fields(turn), "picture": number}
            lines.append(json_line(turn_record(f"turn-{len(lines) + 1}", conversation.image, backbone, fields)))
    if not lines:
        raise InputError.at("cannot save", name, "nothing was answered yet", "Ask a question first", code="no_turns")
    check_place(name, ())
    target = Path(os.path.realpath(name))
    if target.exists() and not target.is_file():
        raise InputError.at("cannot save", name, "it is no regular file", "Name a file", code="output_not_regular")
    if target.exists() and not may_replace:
        advice = "Name another file, or type /save --overwrite FILE"
        raise InputError.at("cannot save", name, "it is there already", advice, code="output_exists")
    with written_atomically(target) as temporary:
        temporary.write_bytes(b"".join(lines))
    return len(lines)


def read_conversations(name: str) -> list[SavedConversation]:
    """Reads the conversations of a file that `save` or `chat --json` wrote.

    Raises:
        InputError: it cannot be read, holds something else, or no turn.
    """
    conversations: dict[tuple[str, object], SavedConversation] = {}
    content = read_regular(name, kind="data", max_bytes=_MOST_BYTES)
    require_text(content[:_START_BYTES], name, action="cannot load")
    for number, line in numbered_lines(BytesIO(content)):
        label = f"line {number}"
        record = _TurnRecord(file=name, label=label, fields=parse_record(line, f"{name} {label}"))
        if not _is_turn(record):
            continue
        image, part = record.raw_text("image"), record.fields.get("picture")
        key = (image, part if is_whole(part) else None)
        conversation = conversations.setdefault(key, SavedConversation(image=image))
        conversation.backbones.add(record.text("backbone"))
        conversation.turns.append(_turn(record))
    if not conversations:
        raise DataError.at("cannot load", name, "it holds no turn of a chat", "Name a file that /save wrote")
    return list(conversations.values())


def _is_turn(record: _TurnRecord) -> bool:
    """Says whether a record is a turn; raises where it is none of this program's."""
    schema = record.text("schema")
    if not schema.startswith(_ANY_SCHEMA):
        raise record.error("it is no record of a chat", advice="Name a file that /save wrote")
    return schema == SCHEMA and record.text("status") == "ok"


def _turn(record: _TurnRecord) -> Turn:
    from vlinstruct.chat import Turn

    question = record.instruction("question")
    instruction = record.instruction("instruction") if "instruction" in record.fields else question
    answer = Answer(text=record.text("answer", may_be_empty=True), instruction=instruction)
    num_cut = record.index("turns_cut", _MOST_BYTES) if "turns_cut" in record.fields else 0
    return Turn(question=question, answer=answer, num_turns_cut=num_cut)
