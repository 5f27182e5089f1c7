"""lmms-eval's requests: of which document they are, what they ask, and which go through the model together. No torch.

A document has a picture and an instruction, which a task's functions make of it; a request asks for its answer or for
the loss of one of its options.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vlinstruct.errors import ImageError, InputError
from vlinstruct.integrations.lmms_eval.settings import Generation, read_generation
from vlinstruct.media.images import PICTURE_TYPES, read_image
from vlinstruct.settings import GenerationSettings
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
        TextError: the instruction is blank or too long.
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
    pictures = list(visuals) if isinstance(visuals, list | tuple) else []
    if len(pictures) != 1:
        why = f"it has {len(pictures) or 'no'} pictures, the model reads one"
        raise InputError.at("cannot ask", document, why, "Leave the task out", code="not_one_picture")
    (picture,) = pictures
    if not isinstance(picture, PICTURE_TYPES):
        why = f"it has a {type(picture).__name__} where its picture should be"
        raise InputError.at("cannot ask", document, why, "Leave the task out", code="no_picture")
    try:
        return read_image(picture, name=str(document))  # a data set's is decoded here, so that damage shows only now
    except ImageError as error:
        # What the command line advises is of a file and its own options: lmms-eval has neither.
        advice = "Replace the picture in the data set, or leave the task out"
        raise ImageError(error.problem, advice=advice, code=error.code) from error.__cause__


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request of lmms-eval, for an answer or for the loss of an option.

    Args:
        document: what it is about.
        context: the instruction as the task's template makes it.
        argument: the task's `generation_kwargs`, or the option whose loss is asked for.
        source: gives the document's pictures, or its messages.
    """

    document: Document
    context: str
    argument: Any
    source: Callable[[Any], Any]

    @property
    def key(self) -> tuple[Document, str]:
        """What requests with the same question have in common."""
        return self.document, self.context


def request_of(context: str, argument: Any, source: Any, number: int, task: str, split: str) -> Request:
    """Returns a request from its arguments, in the order that lmms-eval gives them to simple models."""
    document = Document(task=task, split=split, number=number)
    return Request(document=document, context=context, argument=argument, source=source)


def generations(requests: Sequence[Request], default: GenerationSettings) -> list[Generation]:
    """Returns how every request is answered.

    A request may come more than once (`--repeats`): where its task samples, it is drawn anew each time.

    Args:
        requests: of tasks that generate.
        default: what holds where a task says nothing.
    """
    counts: Counter[tuple[Document, str]] = Counter()
    settings = []
    for request in requests:
        settings.append(read_generation(request.argument, default).repeated(counts[request.key]))
        counts[request.key] += 1
    return settings


def batches(groups: Sequence[Hashable], documents: Sequence[Document], batch_size: int) -> Iterator[list[int]]:
    """Yields the places of requests that go through the model together: whole documents, `batch_size` at a time.

    Args:
        groups: per request what all requests of a batch must share.
        documents: per request the document it is about.
        batch_size: most documents of a batch.
    """
    # A document is never torn apart: its picture is encoded once a batch, and its options are ranked in one pass.
    places: dict[Hashable, dict[Document, list[int]]] = {}
    for place, (group, document) in enumerate(zip(groups, documents, strict=True)):
        places.setdefault(group, {}).setdefault(document, []).append(place)
    for by_document in places.values():
        rows = list(by_document.values())
        for start in range(0, len(rows), batch_size):
            yield [place for row in rows[start : start + batch_size] for place in row]
