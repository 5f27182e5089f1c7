"""Rows as the messages of a chat, and what in them the model would obey instead of being read.

A chat server renders a text and tokenizes the whole: a typed `<|im_end|>` ends the turn, a typed `<|image_pad|>` is a
picture that is not there, and no error says so (vLLM 0.32). So such words are refused by name, unless the server keeps
them literal.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from PIL import Image

from vlinstruct.backend import Row
from vlinstruct.errors import TextError, shortened
from vlinstruct.settings import GenerationSettings

# Whatever looks like a control token of the common families; whether it is one of this model, its tokenizer says.
_CONTROL = re.compile(r"<[|\uff5c]?[^\s<>]{1,60}?[|\uff5c]?>|\[/?[A-Z_]{2,30}\]|◁/?think▷")
# Of a server that does not say, those that some known family has.
_KNOWN_CONTROL = re.compile(
    r"<[|\uff5c][^<>]+[|\uff5c]>|</?(s|pad|unk|bos|eos|mask|think|image|video|audio|img|fake_token_around_image)>"
    r"|<(start|end)_of_[a-z]+>|<image_soft_token>|<(image|loc|seg)_?\d+>|\[/?(INST|IMG|THINK|SYSTEM_PROMPT|IMG_[A-Z]+)\]"
    r"|◁/?think▷"
)


CONTROL_TOKEN = "control_token"
"""The code of a row that is refused for one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SentPicture:
    """A picture as servers are sent it.

    Args:
        png: losslessly, since a score is compared to a hundredth of a nat; every server reads PNG.
    """

    png: bytes = field(repr=False)

    def __repr__(self) -> str:
        return f"<SentPicture of {len(self.png):,} bytes>"

    @classmethod
    def of(cls, picture: Image.Image) -> SentPicture:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=1)
        return cls(png=buffer.getvalue())

    @cached_property
    def key(self) -> str:
        """Names its content: requests of one key go to one server."""
        return hashlib.sha256(self.png).hexdigest()

    @cached_property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def pictures_of(row: Row) -> list[SentPicture]:
    """Returns what was seen for a row."""
    return [seen for seen in row.seen if isinstance(seen, SentPicture)]


def messages_of(row: Row, *, with_uuid: bool = False) -> list[dict[str, Any]]:
    """Returns a row as the messages of a chat, its pictures in front of the first question.

    Args:
        row: the row.
        with_uuid: name the pictures, so that a server which knows one already does not prepare it again (vLLM).
    """
    messages: list[dict[str, Any]] = []
    if row.system:
        messages.append({"role": "system", "content": row.system})
    parts = []
    for picture in pictures_of(row):
        name = {"uuid": picture.key} if with_uuid else {}
        parts.append({"type": "image_url", "image_url": {"url": picture.uri}, **name})
    for exchange in row.history:
        messages.append({"role": "user", "content": _content(parts, exchange.question)})
        messages.append({"role": "assistant", "content": exchange.answer})
        parts = []
    messages.append({"role": "user", "content": _content(parts, row.prompt)})
    return messages


def sampling_of(row: Row, settings: GenerationSettings, *, seed_bits: int = 63) -> dict[str, Any]:
    """Returns how a row is continued, in the words that all routes share.

    All of it is said even where it is off: a server has defaults of its own, vLLM those of the model's folder.

    Args:
        row: its draw is mixed into the seed.
        settings: how.
        seed_bits: that the server takes; vLLM's seeds are signed.
    """
    if not settings.do_sample:
        return {"max_tokens": settings.max_new_tokens, "temperature": 0, "top_p": 1}
    return {
        "max_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "seed": settings.seed_of(row.draw) % 2**seed_bits,
    }


def _content(parts: list[dict[str, Any]], text: str) -> Any:
    return [*parts, {"type": "text", "text": text}] if parts else text


def texts_of(row: Row) -> Iterator[str]:
    """Yields every text of a row that a person may have typed."""
    yield from (row.system, row.prompt)
    for exchange in row.history:
        yield from (exchange.question, exchange.answer)


def suspects_in(text: str) -> list[str]:
    """Returns what in a text may be a control token of some model, each once.

    >>> suspects_in("a <|im_end|> and [INST], 3 < 4 > 2")
    ['<|im_end|>', '[INST]']
    """
    return list(dict.fromkeys(match[0] for match in _CONTROL.finditer(text)))


def is_known_control(text: str) -> bool:
    """Says whether a suspect is a control token of a known family.

    >>> is_known_control("<image>"), is_known_control("<b>")
    (True, False)
    """
    return _KNOWN_CONTROL.fullmatch(text) is not None


def not_literal(text: str) -> TextError:
    """Returns the error of a typed control token that a server would take for its own."""
    return TextError(
        f"{shortened(text, 40)!r} means something to this model, and its server cannot keep it apart from your words",
        advice="Leave it out, or spell it otherwise.",
        code=CONTROL_TOKEN,
    )
