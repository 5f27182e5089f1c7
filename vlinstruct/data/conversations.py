"""Reads training data: instructions about pictures with their answers, in the formats that people have.

    {"id", "image", "instruction" or "question", "answer"}                                  one JSON line each
    {"id", "image", "conversations": [{"from": "human" | "gpt", "value"}]}                  LLaVA, a JSON list or lines
    {"id", "image" or "images", "messages": [{"role": "user" | "assistant", "content"}]}    ShareGPT, Hugging Face

`<image>` in a turn marks the picture's place and is taken out: the picture always stands in front. Earlier turns are
put before the last question, spelled "Question:" and "Answer:".
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlinstruct.data.fetch import Url
from vlinstruct.data.files import PathLike, open_regular
from vlinstruct.data.json_lines import (
    BOM,
    MAX_LINE_BYTES,
    ItemOptions,
    as_object,
    bad_record,
    image_place,
    numbered_lines,
    parse_record,
    parse_strictly,
    record_id,
    text_field,
)
from vlinstruct.data.text import check_instruction, error_line
from vlinstruct.errors import DataError, InputError

Answers = Literal["last", "all"]
_USER, _ASSISTANT = ("human", "user"), ("gpt", "assistant")
_MARK = "<image>"


@dataclass(frozen=True, kw_only=True)
class TrainingSample:
    """One answer to learn.

    Args:
        id: the record's, with the turn's number where all turns are learned.
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


@dataclass(frozen=True, kw_only=True)
class _Record:
    place: str
    content: object

    def fields(self) -> dict[str, object]:
        if isinstance(self.content, bytes):
            return parse_record(self.content, self.place, MAX_LINE_BYTES)
        return as_object(self.content, self.place)


def read_conversations(
    path: PathLike, *, image_root: PathLike | None, answers: Answers = "last"
) -> list[TrainingSample]:
    """Reads all samples of a file.

    Args:
        path: JSON lines, or one JSON list.
        image_root: the folder that image paths start from; None is the file's own folder.
        answers: whether the last answer of a conversation is learned, or all of them, a sample each.

    Raises:
        DataError: the file or one of its records cannot be used; the first bad record is named, with the count.
    """
    name = os.fspath(path)
    root = os.fspath(image_root) if image_root is not None else os.path.dirname(name)
    samples: list[TrainingSample] = []
    problems: list[InputError] = []
    for record in _records(path):
        try:
            samples.extend(_samples(record.fields(), record.place, root, answers, fallback=len(samples)))
        except InputError as error:
            problems.append(error)
    if problems:
        more = f" ({len(problems)} records like it: --check-data lists them)" if len(problems) > 1 else ""
        raise DataError(problems[0].message + more, code=problems[0].code)
    if not samples:
        raise DataError(error_line("cannot read data", name, "nothing to do, it has no records", "Check the file"))
    return samples


def problems_of(path: PathLike, *, image_root: PathLike | None) -> Iterator[str]:
    """Yields what is wrong with each bad record of a file, a line each; pictures are looked for, not decoded."""
    name = os.fspath(path)
    root = os.fspath(image_root) if image_root is not None else os.path.dirname(name)
    for record in _records(path):
        try:
            found = _samples(record.fields(), record.place, root, "all", fallback=0)
        except InputError as error:
            yield error.message
            continue
        if not found[0].image.is_file():
            yield error_line("cannot use item", record.place, f"there is no picture {found[0].image}", "Check the path")


def _records(path: PathLike) -> Iterator[_Record]:
    """Yields every record's place and bytes, or what was parsed of it where the file is one list."""
    name = os.fspath(path)
    with open_regular(path, kind="data") as stream:
        if not stream.peek(64)[:64].removeprefix(BOM).lstrip().startswith(b"["):
            for number, line in numbered_lines(stream, MAX_LINE_BYTES):
                yield _Record(place=f"{name} line {number}", content=line)
            return
        records = parse_strictly(stream.read().removeprefix(BOM), name)
    assert isinstance(records, list)
    for number, record in enumerate(records, start=1):
        yield _Record(place=f"{name} record {number}", content=record)


def _samples(
    record: dict[str, object], place: str, root: str, answers: Answers, *, fallback: int
) -> list[TrainingSample]:
    name = str(record_id(record, place, f"sample-{fallback}"))
    image = image_place(_image_field(record, place), place, root, ItemOptions())
    assert not isinstance(image, Url)
    turns = _turns(record, place)
    learned = range(len(turns)) if answers == "all" else [len(turns) - 1]
    return [
        TrainingSample(
            id=f"{name}#{turn + 1}" if len(learned) > 1 else name,
            image=image,
            instruction=turns[turn][0],
            prompt=_prompt(turns[: turn + 1]),
            answer=turns[turn][1],
        )
        for turn in learned
    ]


def _prompt(turns: Sequence[tuple[str, str]]) -> str:
    """Returns the last question, after the earlier ones with their answers.

    >>> _prompt([("who?", "Ann")]), _prompt([("who?", "Ann"), ("why?", "")])
    ('who?', 'Question: who? Answer: Ann Question: why? Answer:')
    """
    *earlier, (question, _) = turns
    if not earlier:
        return question
    said = [f"Question: {asked} Answer: {answer}" for asked, answer in earlier]
    return " ".join([*said, f"Question: {question} Answer:"])


def _image_field(record: Mapping[str, object], place: str) -> str:
    images = record.get("images")
    if "image" not in record and isinstance(images, list):
        if len(images) != 1 or not isinstance(images[0], str):
            raise bad_record(place, "bad_field", f"one picture is expected in 'images', got {len(images)}")
        return images[0]
    return text_field(dict(record), "image", place)


def _turns(record: dict[str, object], place: str) -> list[tuple[str, str]]:
    """Returns questions with their answers."""
    if "conversations" in record:
        return _paired(record["conversations"], "from", "value", place)
    if "messages" in record:
        return _paired(record["messages"], "role", "content", place)
    asked = "instruction" if "instruction" in record else "question"
    question = check_instruction(text_field(record, asked, place), what=place)
    return [(question, check_instruction(text_field(record, "answer", place), what=place))]


def _paired(messages: object, role: str, content: str, place: str) -> list[tuple[str, str]]:
    if not isinstance(messages, list) or not messages:
        raise bad_record(place, "bad_field", "its conversation is no list of turns")
    spoken = [_spoken(message, role, content, place) for message in messages]
    if spoken[0][0] == "system":
        spoken = spoken[1:]
    roles = [speaker for speaker, _ in spoken]
    if len(spoken) % 2 or any(speaker not in (_ASSISTANT if turn % 2 else _USER) for turn, speaker in enumerate(roles)):
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
