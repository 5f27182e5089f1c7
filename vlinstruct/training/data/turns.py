"""Reads what was said about a picture: questions with their answers, from the ways that records spell them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlinstruct.records.lines import bad_record, text_field
from vlinstruct.text import check_instruction

_USER, _ASSISTANT = ("human", "user"), ("gpt", "assistant")
_MARK = "<image>"

Turns = Sequence[tuple[str, str]]


def turns_of(record: dict[str, object], place: str) -> Turns:
    """Returns questions with their answers, at least one.

    Raises:
        DataError: they are missing or no text, or do not alternate.
        TextError: a model cannot be asked one of the texts.
    """
    if "conversations" in record:
        return _paired(record["conversations"], "from", "value", place)
    if "messages" in record:
        return _paired(record["messages"], "role", "content", place)
    return [_one_question(record, place)]


def prompt_of(turns: Turns) -> str:
    """Returns the last question, after the earlier ones with their answers.

    >>> prompt_of([("who?", "Ann")]), prompt_of([("who?", "Ann"), ("why?", "")])
    ('who?', 'Question: who? Answer: Ann Question: why? Answer:')
    """
    *earlier, (question, _) = turns
    if not earlier:
        return question
    said = [f"Question: {asked} Answer: {answer}" for asked, answer in earlier]
    return " ".join([*said, f"Question: {question} Answer:"])


def _one_question(record: dict[str, object], place: str) -> tuple[str, str]:
    if "instruction" in record and "question" in record:
        raise bad_record(place, "bad_field", "both 'question' and 'instruction' are given", "Keep one of them")
    asked = "instruction" if "instruction" in record else "question"
    if asked not in record and "answer" not in record:
        raise bad_record(place, "missing_field", "fields 'question' and 'answer' are missing", "Add them")
    question = check_instruction(text_field(record, asked, place), what=place)
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
    said = message.get(content) if isinstance(message, dict) else None
    if isinstance(said, list):  # Hugging Face's parts
        said = " ".join(part["text"] for part in said if isinstance(part, dict) and isinstance(part.get("text"), str))
    if not isinstance(said, str) or not isinstance(message.get(role), str):
        raise bad_record(place, "bad_field", f"a turn has no text in '{role}' and '{content}'")
    return message[role], said.replace(_MARK, "").strip()
