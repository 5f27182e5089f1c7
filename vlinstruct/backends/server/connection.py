"""Requests to servers: many in flight, connections kept, tried again where that may help; every failure has a type.

One thread runs an event loop with all requests; whoever asks waits for its own. So a call can be given up at once:
Ctrl-C reaches the thread that waits, and closing the connection ends whatever is still in flight.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import aiohttp

from vlinstruct.backends.server.address import in_order
from vlinstruct.errors import InputError, NetworkError, VlinstructError, printable, shortened
from vlinstruct.values import Failed

MAX_REPLY_BYTES = 256 * 1024 * 1024
"""Most bytes of an answer: prompt log-probabilities of 30,000 tokens take 5 MB of JSON."""
_MAX_ERROR_CHARACTERS = 120
_TRY_AGAIN = (408, 425, 429, 502, 503, 504)
_BUSY = (429, 503)
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 8.0
_GONE_S = 5.0  # that a server is not asked first, after it refused a connection
_LONGEST_WAIT_S = 60.0  # that a server may ask for in Retry-After


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of a server.

    Args:
        path: behind the server's address; from the host's root where it starts with a slash twice.
        body: as JSON; None asks with GET.
        key: requests of the same key go to the same server, as long as it answers.
    """

    path: str
    body: Mapping[str, Any] | None = field(default=None, repr=False)  # it holds pictures
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a server may take, and how often it is asked.

    Args:
        num_in_flight: requests at the same time.
        timeout_s: for one try, from its first byte to its last.
        num_tries: of a request, the first one included.
    """

    num_in_flight: int = 16
    timeout_s: float = 300.0
    num_tries: int = 5


class StatusError(Exception):
    """A server's answer that is no success.

    Args:
        status: HTTP's.
        said: what the server says, in one short line.
        retry_after_s: how long it asks to be left alone; None if it does not say.
    """

    def __init__(self, status: int, said: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{status}: {said}")
        self.status, self.said, self.retry_after_s = status, said, retry_after_s


class Connection:
    """Sends requests to servers of one model.

    Args:
        urls: their addresses, at least one.
        api_key: sent as a bearer token to them, and to nobody else; None sends none.
        limits: times and numbers.
    """

    def __init__(self, urls: Sequence[str], *, api_key: str | None = None, limits: Limits = Limits()) -> None:
        self.urls = tuple(urls)
        self.limits = limits
        self._key = api_key
        self._loop = asyncio.new_event_loop()
        self._is_closed = False
        self._gone_until: dict[str, float] = {}  # by address, in the loop's seconds
        ready: Future[None] = Future()
        # A daemon: a program that ends shall not wait for a server.
        threading.Thread(target=self._run, args=(ready,), name="vlinstruct-server", daemon=True).start()
        ready.result()

    def call(self, request: Request) -> Any:
        """Returns the JSON that a server answers.

        Raises:
            VlinstructError: as of `call_each`.
        """
        (outcome,) = self.call_each([request])
        if isinstance(outcome, Failed):
            raise outcome.error
        return outcome

    def call_each(self, requests: Sequence[Request]) -> list[Any | Failed]:
        """Sends requests together, and returns each one's answer, or why there is none, in order.

        A NetworkError says that another try may help, an InputError that the server refuses this request for good.
        """
        if self._is_closed:
            return [Failed(error=_closed())] * len(requests)
        futures = [asyncio.run_coroutine_threadsafe(self._outcome(request), self._loop) for request in requests]
        try:
            return [future.result() for future in futures]
        except CancelledError:
            return [Failed(error=_closed())] * len(requests)
        finally:
            for future in futures:  # those of a call that was interrupted
                future.cancel()

    def stream(self, request: Request) -> Iterator[Any]:
        """Yields the JSON of each server-sent event; a stream that broke is not begun again: half of it was shown.

        Raises:
            VlinstructError: as of `call_each`.
        """
        events: SimpleQueue[Any] = SimpleQueue()
        task = asyncio.run_coroutine_threadsafe(self._stream(request, events), self._loop)
        task.add_done_callback(lambda task: events.put(None))
        try:
            while (event := events.get()) is not None:
                if isinstance(event, Failed):
                    raise event.error
                yield event
        finally:
            task.cancel()

    async def _stream(self, request: Request, events: SimpleQueue[Any]) -> None:
        url = in_order(self.urls, request.key)[0]
        try:
            async with (
                self._places,
                self._session.post(_joined(url, request.path), json=request.body, allow_redirects=False) as reply,
            ):
                if reply.status != 200:
                    raise StatusError(reply.status, _said(await reply.content.read(1 << 16), self._key))
                async for line in reply.content:
                    text = line.strip()
                    if text == b"data: [DONE]":
                        return
                    if text.startswith(b"data:"):
                        events.put(read_json(text[5:]))
        except (StatusError, aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            events.put(Failed(error=explained(url, error)))

    def close(self) -> None:
        """Ends all requests; those who wait for one get an error."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self, ready: Future[None]) -> None:
        asyncio.set_event_loop(self._loop)
        self._session, self._places = self._loop.run_until_complete(self._opened())
        ready.set_result(None)
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(self._session.close())
        self._loop.close()

    async def _opened(self) -> tuple[aiohttp.ClientSession, asyncio.Semaphore]:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(total=self.limits.timeout_s, connect=min(30.0, self.limits.timeout_s)),
            headers={} if self._key is None else {"Authorization": f"Bearer {self._key}"},
            # A server's cookie is nobody's business, and would tie requests together.
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return session, asyncio.Semaphore(self.limits.num_in_flight)

    async def _outcome(self, request: Request) -> Any | Failed:
        now = self._loop.time()
        # A server that was gone a moment ago comes last.
        urls = sorted(in_order(self.urls, request.key), key=lambda url: self._gone_until.get(url, 0.0) > now)
        num_broken = 0
        for place in range(self.limits.num_tries):
            url = urls[num_broken % len(urls)]
            try:
                async with self._places:
                    return await self._reply(url, request)
            except (StatusError, aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
                problem = explained(url, error)
                if not _may_help(error) or place + 1 == self.limits.num_tries:
                    return Failed(error=problem)
                # A busy server has this picture in its caches and is waited for; a broken one hands it to the next.
                is_busy = isinstance(error, StatusError) and error.status in _BUSY
                num_broken += not is_busy
                if isinstance(error, aiohttp.ClientConnectorError):
                    self._gone_until[url] = self._loop.time() + _GONE_S
                if is_busy or num_broken % len(urls) == 0:
                    await asyncio.sleep(_pause_s(place, error))
        raise AssertionError

    async def _reply(self, url: str, request: Request) -> Any:
        method = "GET" if request.body is None else "POST"
        address = _joined(url, request.path)
        # A server that leads elsewhere is not followed: the key and the pictures are not for others.
        async with self._session.request(method, address, json=request.body, allow_redirects=False) as reply:
            content = bytearray()
            async for chunk in reply.content.iter_chunked(1 << 16):
                content += chunk
                if len(content) > MAX_REPLY_BYTES:
                    raise ValueError("endless")
            if reply.status != 200:
                retry_after_s = _retry_after_s(reply.headers.get("Retry-After"))
                raise StatusError(reply.status, _said(content, self._key), retry_after_s)
        return read_json(content)


def read_json(content: bytes | bytearray | str) -> Any:
    """Reads JSON without the NaN and infinities that Python adds to it: a likelihood of NaN is none.

    Raises:
        ValueError: it is no JSON.
    """

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        return json.loads(content, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _joined(url: str, path: str) -> str:
    """Joins an address and a path; what lies beside `/v1`, as vLLM's `/tokenize` does, is named with two slashes.

    >>> _joined("http://a/v1", "/models"), _joined("http://a/v1", "//tokenize")
    ('http://a/v1/models', 'http://a/tokenize')
    """
    return url.removesuffix("/v1") + path[1:] if path.startswith("//") else url + path


def _pause_s(num_failed: int, error: Exception) -> float:
    """Returns how long to wait before another try: what the server asks for, or doubling, spread over one half."""
    asked = error.retry_after_s if isinstance(error, StatusError) else None
    # Spread, so that requests which failed together do not come back together; no record depends on it.
    pause = min(_FIRST_PAUSE_S * 2**num_failed, _LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)
    return pause if asked is None else min(max(asked, pause), _LONGEST_WAIT_S)


def _retry_after_s(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def _may_help(error: Exception) -> bool:
    """Says whether another try may help: after what broke the connection and what is busy, not after a wrong answer."""
    if isinstance(error, StatusError):
        return error.status in _TRY_AGAIN
    return not isinstance(error, ValueError)  # JSON that is none, a URL that is none


def _said(content: bytes | bytearray, key: str | None) -> str:
    """Returns what a server says of an error, in one line: OpenAI's `error.message`, vLLM's `message`, or the text.

    A server that repeats the key it was sent is not repeated: the line goes into records.
    """
    text = content[:4096].decode(errors="replace")
    try:
        value = json.loads(content)
        error = value.get("error", value) if isinstance(value, dict) else value
        text = error.get("message", text) if isinstance(error, dict) else str(error)
    except (ValueError, RecursionError):  # no JSON: the text itself
        pass
    lines = str(text).strip().splitlines() or ["nothing"]
    return shortened(lines[0] if key is None else lines[0].replace(key, "***"), _MAX_ERROR_CHARACTERS)


def explained(url: str, error: Exception) -> VlinstructError:
    """Returns the error of a request that failed: a NetworkError where another try may help, else an InputError."""
    what, place = "the server failed", printable(url)
    match error:
        case StatusError(status=401 | 403 as status):
            advice = "Put its key into $VLINSTRUCT_API_KEY"
            return InputError.at("the server refuses us", place, f"status {status}", advice, code="server_key")
        case StatusError(status=status) if 300 <= status < 400:
            why, advice = f"it sends us elsewhere (status {status})", "Give the address that it means"
            return InputError.at("cannot use server", place, why, advice, code="server_redirect")
        case StatusError(status=status, said=said) if status in _TRY_AGAIN:
            why = f"status {status}, {said}"
            return NetworkError.at(what, place, why, "Try again, or lower --concurrency", code=f"server_{status}")
        case StatusError(status=status, said=said) if status >= 500:
            return NetworkError.at(what, place, f"status {status}, {said}", "See its log", code=f"server_{status}")
        case StatusError(status=status, said=said):
            advice = "See its documentation"
            return InputError.at("the server refuses this", place, said, advice, code=f"server_{status}")
        case TimeoutError():
            advice = "Raise --timeout, or lower --concurrency"
            return NetworkError.at(what, place, "no answer in time", advice, code="server_timeout")
        case aiohttp.ClientConnectorDNSError():
            return NetworkError.at("no server", place, "its host is not found", "Check the URL", code="server_host")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            why = "its certificate or encryption is not accepted"
            return NetworkError.at("no server", place, why, "Check the URL", code="server_tls")
        case aiohttp.ClientConnectorError():
            why = "the connection was refused"
            return NetworkError.at("no server", place, why, "Start it, or check the URL", code="server_connection")
        case aiohttp.InvalidURL():
            return InputError.at("no server", place, "it is no URL", "Check the URL", code="server_url")
        case json.JSONDecodeError() | ValueError():
            why = "its answer is no JSON"
            return NetworkError.at(
                what, place, why, "Check that it is an OpenAI-compatible server", code="server_reply"
            )
        case _:
            why = "the connection broke"
            return NetworkError.at(what, place, why, "Try again", code="server_broken")


def _closed() -> NetworkError:
    return NetworkError("the connection to the server was closed", code="server_closed")
