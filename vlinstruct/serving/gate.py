"""Who may come in: the key, the host that was meant, how large a body is, how many requests there are at once.

It stands in front of every route, so that a new one cannot be forgotten.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from vlinstruct.serving.replies import error_body

Message = MutableMapping[str, Any]
_WATCHED = ("/health", "/metrics")
PAGE = "/"
"""The page's route: what stands there is the same for everybody, and asks the others for the rest."""


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """What comes in.

    Args:
        api_key: that every request must show; None for nobody's.
        hosts: names by which this server may be called; empty for any. A page of another site, whose name was made to
            lead here (DNS rebinding), calls it by its own.
        max_body_bytes: of a request.
        body_timeout_s: for a body to come.
        max_requests: at work or waiting; more are told to come back.
        has_page: there is a page for people at `/`, which needs no key, as a browser has none to show.
    """

    api_key: str | None = field(default=None, repr=False)
    hosts: frozenset[str] = frozenset()
    max_body_bytes: int = 32 * 1024 * 1024
    body_timeout_s: float = 30.0
    max_requests: int = 256
    has_page: bool = True


class Gate:
    """ASGI middleware that refuses before anything is read.

    Args:
        app: what stands behind it; gets requests whose body has come as a whole.
        settings: what comes in.
        log: is told what was refused here.
    """

    def __init__(self, app: ASGIApp, settings: GateSettings, log: Callable[[str], None] = lambda line: None) -> None:
        self.app, self.settings, self.log = app, settings, log
        self.num_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the server's own start and end; no WebSocket is served
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        # Nobody who has no key gets a body read.
        is_bodiless = "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"
        is_page = (
            self.settings.has_page and scope["path"] == PAGE and scope["method"] in ("GET", "HEAD") and is_bodiless
        )
        refused = self._refused(headers, needs_key=not is_page)
        # Who looks after the server must hear from it while it is busy.
        is_work = scope["path"] not in _WATCHED and not is_page
        if refused is None and is_work and self.num_requests >= self.settings.max_requests:
            refused = _refuse(429, "too many requests", "busy", {"retry-after": "1"})
        if refused is not None:
            self.log(f"refused {refused.status_code}")
            await refused(scope, receive, send)
            return
        self.num_requests += is_work
        try:
            body = await self._body(receive)
            if isinstance(body, JSONResponse):
                self.log(f"refused {body.status_code}")
                await body(scope, receive, send)
            elif body is not None:
                await self.app(scope, _replayed(body, receive), send)
        finally:
            self.num_requests -= is_work

    def _refused(self, headers: dict[str, str], *, needs_key: bool) -> JSONResponse | None:
        settings = self.settings
        if settings.api_key is not None and needs_key:
            scheme, _, key = headers.get("authorization", "").partition(" ")
            # In bytes, since a key may hold any; in constant time, so that no prefix can be guessed letter by letter.
            is_right = hmac.compare_digest(key.strip().encode("latin-1"), settings.api_key.encode())
            if scheme.lower() != "bearer" or not is_right:
                return _refuse(401, "a key is needed: Authorization: Bearer KEY", "key", {"www-authenticate": "Bearer"})
        host = headers.get("host", "").lower()
        if settings.hosts and _host_of(host) not in settings.hosts:
            return _refuse(403, "this server is not called by that name", "host")
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != host:
            return _refuse(403, "pages of other sites may not call this server", "origin")
        if headers.get("content-encoding", "identity") != "identity":
            return _refuse(415, "send the body uncompressed", "encoding")
        if "transfer-encoding" in headers and "content-length" in headers:
            return _refuse(400, "its length is said in two ways", "length")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > settings.max_body_bytes:
            return self._too_large()
        return None

    async def _body(self, receive: Receive) -> bytes | JSONResponse | None:
        """Returns a body as a whole, the answer to one that is too large or too slow, or None if its client left."""
        body = bytearray()
        try:
            async with asyncio.timeout(self.settings.body_timeout_s):
                while True:
                    message = await receive()
                    body += message.get("body", b"")
                    if len(body) > self.settings.max_body_bytes:
                        return self._too_large()
                    if message["type"] == "http.disconnect":
                        return None
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            return _refuse(408, "the body did not come in time", "slow")

    def _too_large(self) -> JSONResponse:
        most = self.settings.max_body_bytes // (1024 * 1024)
        return _refuse(413, f"a request may have at most {most} MiB", "too_large")


def loopback_hosts(host: str) -> frozenset[str]:
    """Returns the names of a server that listens on this machine alone; none, so any, where others may come in.

    >>> sorted(loopback_hosts("127.0.0.1")), loopback_hosts("0.0.0.0")
    (['127.0.0.1', '::1', 'localhost'], frozenset())
    """
    return frozenset({"localhost", "127.0.0.1", "::1"}) if is_loopback(host) else frozenset()


def is_loopback(host: str) -> bool:
    """Says whether an address is this machine's alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _host_of(netloc: str) -> str:
    try:
        return (urlsplit(f"//{netloc}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _refuse(status: int, message: str, code: str, headers: dict[str, str] | None = None) -> JSONResponse:
    # A refused body is not read to its end, so nothing can follow it.
    closing = {**(headers or {}), "connection": "close"}
    return JSONResponse(error_body(message, code=code, status=status), status_code=status, headers=closing)


def _replayed(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """Returns what gives the body that was read, and then tells when the client goes."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
