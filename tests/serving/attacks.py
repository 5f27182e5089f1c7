"""What attacks on a server of ours are made of: raw connections, a model that does what a test says, and an Internet
that ends at this machine."""

from __future__ import annotations

import base64
import io
import ipaddress
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from picture_fixtures import make_picture
from serving.loopback import serving
from starlette.types import ASGIApp

from vlinstruct.backend import Backend, Row, Seen, Written
from vlinstruct.model import Model
from vlinstruct.serving.app import ServeSettings, Service
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Abilities, Failed, TokenScores

CHAT = "/v1/chat/completions"

# What no error body may hold: a path, an address, a traceback, a library's name or words.
_LEAK = re.compile(
    rb"0x[0-9a-f]{4,}|Traceback|File \"|/(work|tmp|srv|home|usr|etc)/|site-packages|\.py\b|"
    rb"\b(torch|PIL|Pillow|uvicorn|starlette|h11|anyio|asyncio|tokenizers|pydantic)\b|[A-Z][a-z]+(Error|Exception)\b"
)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a server answered.

    Args:
        status: HTTP's.
        headers: by lower-case name; of several of one name the last.
        body: as a whole, its chunks joined.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> Mapping[str, Any]:
        """What a typed error holds; a refusal that is none, or tells too much, fails the test."""
        assert self.status >= 400, self
        assert not (leak := _LEAK.search(self.body)), (leak, self.body)
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert len(error["message"]) < 400
        return error


class Wire:
    """One connection, on which anything can be sent.

    Args:
        port: on 127.0.0.1.
        timeout_s: for each step.
        receive_bytes: of the kernel's buffer, where the client is to read slowly.
    """

    def __init__(self, port: int, *, timeout_s: float = 15.0, receive_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(timeout_s)
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.connect(("127.0.0.1", port))
        self.buffer = bytearray()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, content: bytes) -> bool:
        """Sends bytes; False where the server has closed the connection."""
        try:
            self.socket.sendall(content)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def reply(self, method: str = "GET") -> Reply | None:
        """Reads one answer; None where the connection ends in front of it."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                return None
        head, _, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        self.buffer = bytearray(rest)
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        status = int(first.split()[1])
        has_body = method != "HEAD" and status >= 200 and status not in (204, 304)
        return Reply(status=status, headers=headers, body=self._body(headers) if has_body else b"")

    def event(self) -> bytes:
        """Reads bytes up to the end of the first server-sent event, with what stands in front of it."""
        while b"data: " not in self.buffer:
            if not self._more():
                break
        return bytes(self.buffer)

    def rest(self, within_s: float) -> tuple[bytes, bool]:
        """Reads on until the server closes the connection; returns what came, and whether it did so in time."""
        deadline = time.monotonic() + within_s
        try:
            while (left := deadline - time.monotonic()) > 0:
                self.socket.settimeout(left)
                if not self._more():
                    return bytes(self.buffer), True
        except TimeoutError:
            pass
        return bytes(self.buffer), False

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            body = bytearray()
            while size := int(self._line(), 16):
                body += self._exactly(size + 2)[:-2]
            self._line()
            return bytes(body)
        if "content-length" in headers:
            return self._exactly(int(headers["content-length"]))
        return self.rest(10.0)[0]

    def _line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            assert self._more(), "cut off"
        line, _, rest = bytes(self.buffer).partition(b"\r\n")
        self.buffer = bytearray(rest)
        return line

    def _exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            assert self._more(), "cut off"
        content = bytes(self.buffer[:size])
        del self.buffer[:size]
        return content

    def _more(self) -> bool:
        try:
            content = self.socket.recv(65_536)
        except ConnectionResetError:
            return False
        self.buffer += content
        return bool(content)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A server under attack.

    Args:
        port: on 127.0.0.1.
        service: behind its routes.
        gate: the application as a whole.
        lines: what it logs.
        key: that a normal request shows.
    """

    port: int
    service: Service
    gate: Any
    lines: list[str] = field(default_factory=list)
    key: str | None = None

    def wire(self, **options: Any) -> Wire:
        """Opens a connection."""
        return Wire(self.port, **options)

    def request(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
        """Returns the bytes of a request; headers that are given replace the usual ones, None leaves one out."""
        usual = {"Host": f"127.0.0.1:{self.port}", "Content-Length": str(len(body))}
        if self.key is not None:
            usual["Authorization"] = f"Bearer {self.key}"
        lines = [f"{name}: {value}" for name, value in {**usual, **(headers or {})}.items() if value is not None]
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""])
        return head.encode("utf-8", "surrogateescape") + body

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, Any] | None = None) -> Reply:
        """Sends a request on a connection of its own, and returns the answer."""
        with self.wire() as wire:
            wire.send(self.request(method, path, body, headers))
            reply = wire.reply(method)
        assert reply is not None, "no answer"
        return reply

    def post(self, path: str, body: Any, headers: Mapping[str, Any] | None = None) -> Reply:
        """Posts JSON, or bytes as they are."""
        return self.ask("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)

    def assert_sound(self) -> None:
        """Fails unless health and one normal request succeed."""
        health = self.ask("GET", "/health")
        assert (health.status, health.json["status"]) == (200, "ok")
        normal = self.post(CHAT, {"model": self.service.settings.name, "messages": asking(), "max_tokens": 2})
        assert normal.status == 200, normal.body
        assert isinstance(normal.json["choices"][0]["message"]["content"], str)


@contextmanager
def attacked(model: Model, settings: ServeSettings | None = None) -> Iterator[Target]:
    """Serves a model for attacks."""
    gates: list[Any] = []

    def keep(app: ASGIApp) -> ASGIApp:
        gates.append(app)
        return app

    with serving(model, settings, wrap=keep) as url:
        service = gates[0].app.routes[0].endpoint.__self__
        key = service.settings.gate.api_key
        port = int(url.split(":")[2].split("/")[0])
        target = Target(port=port, service=service, gate=gates[0], key=key)
        service.log = target.lines.append
        yield target


def uri_of(content: bytes, kind: str = "image/png") -> str:
    """Returns content as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _picture_file() -> bytes:
    buffer = io.BytesIO()
    make_picture(24, 24).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = _picture_file()
URI = uri_of(PICTURE)


def asking(question: str = "describe", *urls: str) -> list[Any]:
    """Returns the messages of one question about pictures; about a usual one where none is named."""
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls or (URI,)]
    return [{"role": "user", "content": [{"type": "text", "text": question}, *pictures]}]


class Puppet(Backend):
    """A model of which every step does what a test says first.

    Args:
        on_see: called in front of every picture.
        on_write: called in front of every text, with its rows.
        on_piece: called in front of every piece of a stream, with its place.
        piece: what a stream yields.
        num_pieces: how often.

    Attributes:
        num_written: rows that were written.
        num_yielded: pieces that were yielded.
        prompts: texts that reached it.
    """

    abilities = Abilities(can_stream=True)

    def __init__(
        self,
        *,
        on_see: Callable[[], None] = lambda: None,
        on_write: Callable[[Sequence[Row]], None] = lambda rows: None,
        on_piece: Callable[[int], None] = lambda place: None,
        piece: str = "red ",
        num_pieces: int = 3,
    ) -> None:
        self.on_see, self.on_write, self.on_piece = on_see, on_write, on_piece
        self.piece, self.num_pieces = piece, num_pieces
        self.num_written, self.num_yielded = 0, 0
        self.prompts: list[str] = []

    def see(self, media: Sequence[Any]) -> list[Seen | Failed]:
        self.on_see()
        return [object() for _ in media]

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        self.prompts += [text for row in rows for text in _texts_of(row)]
        self.on_write(rows)
        self.num_written += len(rows)
        return [Written(text="red", token_nll=(0.5,)) for _ in rows]

    def score(
        self,
        rows: Sequence[Row],
        targets: Sequence[Sequence[str]],
        *,
        with_end: bool = True,
        num_first: int | None = None,
    ) -> list[list[TokenScores] | Failed]:
        self.prompts += [text for row in rows for text in _texts_of(row)]
        self.prompts += [text for of_row in targets for text in of_row]
        return [[TokenScores(tokens=("red",), token_nll=(0.5,)) for _ in of_row] for of_row in targets]

    def stream(self, row: Row, settings: GenerationSettings) -> Iterator[str | Written]:
        for place in range(self.num_pieces):
            self.on_piece(place)
            self.num_yielded += 1
            yield self.piece
        yield Written(text=(self.piece * self.num_pieces).strip())


def _texts_of(row: Row) -> list[str]:
    return [row.prompt, row.system, row.reads, *(text for turn in row.history for text in (turn.question, turn.answer))]


PUBLIC = "93.184.216.34"
"""An address of the public Internet; in tests, a server on the loopback stands for it."""

_LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
_REAL_GETADDRINFO, _REAL_CONNECT = socket.getaddrinfo, socket.socket.connect


class Network:
    """Names and connections of a made-up Internet: no packet leaves 127.0.0.0/8.

    Args:
        names: what each look-up of a name answers, in turn; the last answer is repeated.
        public_port: of the server on the loopback that stands for PUBLIC, whatever the port.
        known_ports: on the loopback, where the test itself connects.

    Attributes:
        inside: addresses on the loopback that somebody else connected to; the connections are made.
        strayed: addresses outside it and PUBLIC that somebody connected to; they are refused.
        num_public: connections to PUBLIC.
        num_looked_up: names that were looked up, literal addresses left out.
    """

    def __init__(self, names: Mapping[str, list[list[str]]], *, public_port: int, known_ports: Sequence[int]) -> None:
        self.names = {name: list(answers) for name, answers in names.items()}
        self.public_port, self.known_ports = public_port, set(known_ports)
        self.inside: list[tuple[str, int]] = []
        self.strayed: list[tuple[str, int]] = []
        self.num_public, self.num_looked_up = 0, 0
        self.delay_s = 0.0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Puts it in the place of the real one."""
        network = self

        def connect(sock: socket.socket, address: Any) -> None:
            host, port = address[:2]
            if host == PUBLIC:
                network.num_public += 1
                _REAL_CONNECT(sock, ("127.0.0.1", network.public_port))
                return
            if sock.family != socket.AF_INET or ipaddress.ip_address(host) not in _LOOPBACK:
                network.strayed.append((host, port))
                raise ConnectionRefusedError("outside")
            if port not in network.known_ports:
                network.inside.append((host, port))
            _REAL_CONNECT(sock, address)

        monkeypatch.setattr(socket, "getaddrinfo", self._getaddrinfo)
        monkeypatch.setattr(socket.socket, "connect", connect)

    def assert_untouched(self) -> None:
        """Fails where somebody connected to where nobody may."""
        assert (self.inside, self.strayed) == ([], [])

    def _getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        def literal(address: str) -> list[Any]:
            return _REAL_GETADDRINFO(address, port, family, type, proto, socket.AI_NUMERICHOST)

        name = host.decode("ascii") if isinstance(host, bytes) else str(host)
        with suppress(socket.gaierror):
            return literal(name)
        self.num_looked_up += 1
        time.sleep(self.delay_s)
        answers = self.names.get(name.lower().rstrip("."))
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return [entry for address in answer for entry in literal(address)]


class Site:
    """A server of pictures that misbehaves.

    Attributes:
        port: on 127.0.0.1.
        num_served: connections.
        left: set when a client has hung up.
    """

    def __init__(self, port: int) -> None:
        self.port, self.num_served = port, 0
        self.left = threading.Event()


@contextmanager
def misbehaving(behave: Callable[[socket.socket, threading.Event], None]) -> Iterator[Site]:
    """Runs a server that gives every connection, its request read, to a function; that may send for ever."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        site = Site(listener.getsockname()[1])
        threads: list[threading.Thread] = []

        def answer(connection: socket.socket) -> None:
            with connection:
                connection.settimeout(0.5)
                try:
                    connection.recv(65_536)
                    behave(connection, stop)
                except TimeoutError:
                    pass
                except OSError:
                    site.left.set()

        def accept() -> None:
            while not stop.is_set():
                with suppress(TimeoutError):
                    connection, _ = listener.accept()
                    site.num_served += 1
                    threads.append(threading.Thread(target=answer, args=(connection,)))
                    threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield site
        finally:
            stop.set()
            accepting.join(10)
            for thread in threads:
                thread.join(10)


def soon(holds: Callable[[], bool], within_s: float = 6.0) -> bool:
    """Waits until something holds; returns whether it came to hold in time."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
