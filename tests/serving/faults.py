"""A server that fails now and then, in every way that servers do; and pictures to ask it about."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

WAYS = ("reset", "429", "500", "slow", "truncated", "schema", "nan")
"""What can be made behind a connection; a connection that is refused needs an address where nobody listens."""


class Faulty:
    """ASGI middleware that spoils some answers of the chat route.

    Args:
        app: answers.
        share: of requests that are spoilt, 0 to 1.
        slow_s: how long a slow answer takes.

    Attributes:
        spoilt: how many, by way.
    """

    def __init__(self, app: ASGIApp, *, share: float, slow_s: float) -> None:
        self.app, self.share, self.slow_s = app, share, slow_s
        self.rng = random.Random("faults")
        self.spoilt: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_chat = scope["type"] == "http" and scope["path"].endswith("/chat/completions")
        if not is_chat or self.rng.random() >= self.share:
            await self.app(scope, receive, send)
            return
        way = self.rng.choice(WAYS)
        self.spoilt[way] += 1
        if way in ("429", "500"):
            await self._answer(send, int(way), {"error": {"message": "made to fail"}})
        elif way == "schema":
            await self._answer(send, 200, {"choices": [], "object": "chat.completion"})
        elif way == "slow":
            await asyncio.sleep(self.slow_s)
            await self._answer(send, 200, {})
        else:
            await self._spoilt(way, scope, receive, send)

    async def _answer(self, send: Send, status: int, body: Mapping[str, Any]) -> None:
        content = json.dumps(body).encode()
        await send(_start(status, len(content)))
        await send({"type": "http.response.body", "body": content})

    async def _spoilt(self, way: str, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.body":
                body.extend(message.get("body", b""))

        await self.app(scope, receive, keep)
        half = bytes(body[: len(body) // 2])
        if way == "truncated":
            await send(_start(200, len(half)))
            await send({"type": "http.response.body", "body": half})
        elif way == "nan":
            text = bytes(body).replace(b'"logprob":', b'"logprob":NaN,"was":')
            await send(_start(200, len(text)))
            await send({"type": "http.response.body", "body": text})
        else:
            await send(_start(200, len(body)))
            await send({"type": "http.response.body", "body": half, "more_body": True})
            raise ConnectionResetError("made to fail")


def _start(status: int, length: int) -> Message:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(length).encode())]
    return {"type": "http.response.start", "status": status, "headers": headers}
