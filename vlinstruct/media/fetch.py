"""Fetches a picture from an http(s) URL, within time, size and redirect caps.

A URL that a user typed may lead anywhere; one that a file names, and what any URL redirects to, to public hosts only.

Where the connection failed, or the server did, this is an error of the network, and another try may help. Where the
address is wrong (no URL, 404, too large), it is one of the input.

With the standard library: it is one request, and no HTTP library bounds its whole time, name server included.
"""

from __future__ import annotations

import base64
import http.client
import queue
import re
import socket
import ssl
import string
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from vlinstruct.errors import ImageError, InputError, NetworkError
from vlinstruct.media.public_hosts import GuardedHTTPHandler, GuardedHTTPSHandler, PrivateHostError

TIMEOUT_S = 10.0
"""Longest wait for a connection or for the next bytes, in seconds."""

TOTAL_S = 60.0
"""Longest time for everything, in seconds."""

MAX_BYTES = 50_000_000
"""Most bytes of the answer."""

MAX_REDIRECTS = 3

_CHUNK_BYTES = 65_536
_SCHEMES = ("http", "https")
# What carries a password or a signature in the queries of S3, Google, Azure, CloudFront and plain APIs.
_SECRET = re.compile(
    r"(?i)^(sig|signature|.*token|.*[-_](signature|credential)|policy|.*key|key-pair-id|pass(word)?|auth)$"
)
_TRY_AGAIN = (408, 425, 429)  # client errors by number, but a matter of time


@dataclass(frozen=True, kw_only=True)
class Url:
    """An http(s) address; it may hold a password, so it is shown only through `name`.

    Args:
        address: the address.
        is_typed: the user typed it, so its host may be one of their own network.
    """

    address: str
    is_typed: bool = False

    def __repr__(self) -> str:
        return f"Url({self.name!r})"

    @property
    def name(self) -> str:
        """The address without user, password, fragment, and the values of its query that sign or open it.

        >>> Url(address="https://me:secret@example.org/a.png?size=2&sig=abc").name
        'https://example.org/a.png?size=2&sig=***'
        """
        try:
            parts = urlsplit(self.address)
        except ValueError:  # e.g. half an IPv6 address: nothing of it can be trusted to be no password
            return "the URL"
        fields = [field.partition("=") for field in parts.query.split("&")]
        query = "&".join(
            f"{name}=***" if _SECRET.match(name) else name + equals + value for name, equals, value in fields
        )
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))

    @property
    def short_name(self) -> str:
        """The name without its query, which may hold a signature: for messages."""
        return self.name.partition("?")[0]


def fetch(url: Url) -> bytes:
    """Returns the content behind a URL.

    Args:
        url: an http(s) address; a user and password in it are sent as Basic authorization, to its own host only.

    Raises:
        ImageError: the address is wrong: no URL, another status of 400 to 499, too many bytes; `code` says which.
        NetworkError: no connection, another status than 200, too much time or too many redirects.
    """
    answers: queue.SimpleQueue[bytes | InputError | NetworkError] = queue.SimpleQueue()
    opened = _Opened()
    # A thread, because no socket timeout bounds a name server that hangs or a server that sends a byte a second.
    threading.Thread(target=lambda: answers.put(_fetch_or_error(url, opened.add)), daemon=True).start()
    try:
        answer = answers.get(timeout=TOTAL_S)
    except queue.Empty:
        raise _problem(url, "timeout", f"not complete after {TOTAL_S:g} s", "Try again later") from None
    finally:
        opened.end()  # the thread, too
    if not isinstance(answer, bytes):
        raise answer
    return answer


class _Opened:
    """The connections of a fetch, which end with it, also those that come too late."""

    def __init__(self) -> None:
        self._connections: list[socket.socket] | None = []
        self._lock = threading.Lock()

    def add(self, connection: socket.socket) -> None:
        with self._lock:
            if self._connections is not None:
                self._connections.append(connection)
                return
        _shut(connection)

    def end(self) -> None:
        with self._lock:
            connections, self._connections = self._connections or [], None
        for connection in connections:
            _shut(connection)


def _shut(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _fetch_or_error(url: Url, on_connected: Callable[[socket.socket], None]) -> bytes | InputError | NetworkError:
    try:
        opener = _opener(url, on_connected)
        with opener.open(_request(url), timeout=TIMEOUT_S) as response:
            return _read(response, url)
    except (InputError, NetworkError) as error:
        return error
    except urllib.error.HTTPError as error:
        error.close()
        return _status_problem(url, error.code)
    except Exception as error:  # a damaged answer makes http.client raise ValueError, AssertionError and others
        return _explain(url, error)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, url: Url) -> None:
        self.url, self.left = url, MAX_REDIRECTS

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        self.left -= 1
        if self.left < 0:
            fp.close()
            why = f"more than {MAX_REDIRECTS} redirects"
            raise _problem(self.url, "redirects", why, "Use the final URL")
        if urlsplit(newurl).scheme not in _SCHEMES:
            fp.close()
            raise _status_problem(self.url, code)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(url: Url, on_connected: Callable[[socket.socket], None]) -> urllib.request.OpenerDirector:
    # build_opener() would add handlers for file:, ftp: and data:.
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.ProxyHandler())
    trusted_host = urlsplit(url.address).hostname if url.is_typed else None
    opener.add_handler(GuardedHTTPHandler(trusted_host, on_connected))
    opener.add_handler(GuardedHTTPSHandler(trusted_host, on_connected))
    opener.add_handler(urllib.request.HTTPErrorProcessor())
    opener.add_handler(urllib.request.HTTPDefaultErrorHandler())
    opener.add_handler(_Redirects(url))
    return opener


def _request(url: Url) -> urllib.request.Request:
    parts = urlsplit(url.address)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise _bad_url(url)
    host = parts.hostname.encode("idna").decode() if ":" not in parts.hostname else f"[{parts.hostname}]"
    netloc = f"{host}:{parts.port}" if parts.port else host
    path, query = (quote(part, safe=string.punctuation) for part in (parts.path, parts.query))
    request = urllib.request.Request(urlunsplit((parts.scheme, netloc, path, query, "")))
    request.add_header("User-Agent", "vlinstruct")
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        # "unredirected": another host never gets it.
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    return request


def _read(response: http.client.HTTPResponse, url: Url) -> bytes:
    if response.status != 200:
        raise _status_problem(url, response.status)
    announced = response.headers.get("Content-Length", "")
    expected = int(announced) if announced.isascii() and announced.isdigit() else None
    content = bytearray()
    while len(content) <= MAX_BYTES and (expected is None or expected <= MAX_BYTES):
        chunk = response.read(_CHUNK_BYTES)
        if not chunk:
            break
        content += chunk
    else:
        why = f"more than {MAX_BYTES:,} bytes"
        raise _wrong_address(url, "too_large", why, "Download it yourself and name the file")
    if expected is not None and len(content) < expected:
        raise _problem(url, "cut_off", "the connection closed before all of it came", "Try again")
    return bytes(content)


def _status_problem(url: Url, status: int) -> InputError | NetworkError:
    if 300 <= status < 400:  # a redirect that urllib or we would not follow
        return _problem(url, "redirects", "it redirects to another kind of URL than http(s)", "Check the URL")
    is_address_wrong = 400 <= status < 500 and status not in _TRY_AGAIN
    problem = _wrong_address if is_address_wrong else _problem
    advice = "Check the URL" if is_address_wrong or status < 400 else "Try again later"
    return problem(url, f"http_{status}", f"the server answered {status}", advice)


def _explain(url: Url, error: Exception) -> InputError | NetworkError:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    match reason:
        case PrivateHostError():
            why = "it leads into a private network, where only a typed URL may lead"
            return _wrong_address(url, "private", why, "Download the picture, or type its URL")
        case TimeoutError():
            return _problem(url, "timeout", f"no answer within {TIMEOUT_S:g} s", "Try again later")
        case ssl.SSLError():
            return _problem(url, "tls", "its certificate or encryption is not accepted", "Check the URL")
        case socket.gaierror():
            return _problem(url, "unknown_host", "its host is not found", "Check the URL and the network")
        case ConnectionRefusedError():
            return _problem(url, "no_connection", "its host refused the connection", "Check the URL")
        case ValueError() | http.client.InvalidURL():
            return _bad_url(url)
        case http.client.IncompleteRead():
            return _problem(url, "cut_off", "the connection closed before all of it came", "Try again")
        case _:
            return _problem(url, "network", "the connection failed", "Check the network and try again")


def _bad_url(url: Url) -> InputError:
    return _wrong_address(url, "bad_url", "it is no http(s) URL with a host", "Check the URL")


def _wrong_address(url: Url, code: str, why: str, advice: str) -> InputError:
    return ImageError.at("cannot fetch image", url.short_name, why, advice, code=f"url_{code}")


def _problem(url: Url, code: str, why: str, advice: str) -> NetworkError:
    return NetworkError.at("cannot fetch image", url.short_name, why, advice, code=f"url_{code}")
