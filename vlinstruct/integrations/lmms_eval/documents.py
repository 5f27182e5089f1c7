"""The documents of a task: their names, and the picture and the instruction that a request asks of one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vlinstruct.errors import ImageError, InputError
from vlinstruct.media.image_modes import to_rgb
from vlinstruct.media.images import load_image
from vlinstruct.text import check_instruction

# Where lmms-eval's tasks put a placeholder: in front, on a line of its own, behind a colon at the end of a line.
_PLACEHOLDER = re.compile(
    r"\A(?:\s*<image>)+\s*|\n[ \t]*(?:<image>[ \t]*)+(?=\n|\Z)|(?<=:)[ \t]*<image>[ \t]*(?=\n|\Z)"
)


@dataclass(frozen=True, kw_only=True)
class Document:
    """A document's name.

    Args:
        task: the task's.
        split: the part of its data set.
        number: its place there, from 0.
    """

    task: str
    split: str
    number: int

    def __str__(self) -> str:
        return f"document {self.number} of task {self.task}"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of a document.

    Args:
        document: its name.
        picture: RGB.
        text: the instruction.
    """

    document: Document
    picture: Image.Image
    text: str


def question(document: Document, visuals: object, context: str) -> Question:
    """Reads what a task asks of a document.

    Args:
        document: its name.
        visuals: its pictures, as the task gives them; there must be one.
        context: the instruction, perhaps with lmms-eval's placeholder for the picture.

    Raises:
        InputError: there is not one picture.
        ImageError: it cannot be read.
        TextError: nobody can be asked this instruction.
    """
    text = check_instruction(without_placeholders(context), what=str(document))
    return Question(document=document, picture=_only_picture(document, visuals), text=text)


def without_placeholders(context: str) -> str:
    r"""Removes lmms-eval's placeholders for pictures; an `<image>` within a sentence is a person's and stays.

    >>> without_placeholders("<image>\nWhat does <image> do in HTML?")
    'What does <image> do in HTML?'
    >>> without_placeholders("Question: <image>\nWhat is it?")
    'Question:\nWhat is it?'
    """
    return _PLACEHOLDER.sub("", context)


def parts_of(messages: Sequence[Mapping[str, Any]]) -> tuple[list[object], str]:
    """Returns the pictures of chat messages, and their texts as lines of one instruction."""
    parts: list[Mapping[str, Any]] = []
    for message in messages:
        content = message["content"]
        parts += [{"type": "text", "text": content}] if isinstance(content, str) else content
    texts = [part["text"] for part in parts if part["type"] == "text"]
    return [part.get("url") for part in parts if part["type"] != "text"], "\n".join(texts)


def _only_picture(document: Document, visuals: object) -> Image.Image:
    given = list(visuals) if isinstance(visuals, list | tuple) else []
    if len(given) != 1:
        why = f"it has {len(given) or 'no'} pictures, the model reads one"
        raise InputError.at("cannot ask", document, why, "Leave the task out", code="not_one_picture")
    (picture,) = given
    if isinstance(picture, Image.Image):
        return _rgb(picture, document)
    if isinstance(picture, str | os.PathLike | bytes):
        return load_image(picture, name=str(document)).image
    why = f"it has a {type(picture).__name__} where its picture should be"
    raise InputError.at("cannot ask", document, why, "Leave the task out", code="no_picture")


def _rgb(picture: Image.Image, document: Document) -> Image.Image:
    try:
        return to_rgb(picture, str(document))
    except OSError as error:  # a data set's picture is decoded when it is used
        raise ImageError.at("cannot read image", document, "it is damaged", "Get the data set again") from error
