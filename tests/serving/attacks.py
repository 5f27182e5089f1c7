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
        self.buffer = bytearray()
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise

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

    def until(self, content: bytes) -> bytes:
        """Reads until something came, or the connection ends; returns all that came."""
        while content not in self.buffer and self._more():
            pass
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
def attacked(model: Model, settings: ServeSettings | None = None, *, waits: bool = True) -> Iterator[Target]:
    """Serves a model for attacks.

    Args:
        model: loaded, or a puppet's.
        settings: how it is served.
        waits: for a puppet's streams to end, before the server ends.
    """
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
        if waits and isinstance(model.backend, Puppet):
            soon(lambda: model.backend.num_streaming == 0, 2.0)  # type: ignore[attr-defined]


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
        num_streaming: streams that have not ended.
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
        self.num_written, self.num_yielded, self.num_streaming = 0, 0, 0
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
        self.num_streaming += 1
        try:
            for place in range(self.num_pieces):
                self.on_piece(place)
                self.num_yielded += 1
                yield self.piece
            yield Written(text=(self.piece * self.num_pieces).strip())
        finally:
            self.num_streaming -= 1


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
        assert not self.inside + self.strayed, f"connected to {self.inside + self.strayed}"

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


def _words(text: str) -> list[str]:
    return text.split()


NAMES: Mapping[str, list[list[str]]] = {
    "good.test": [[PUBLIC]],
    "localhost": [["127.0.0.1"]],
    "sub.localhost": [["127.0.0.1"]],
    "inside.test": [["127.0.0.1"]],
    "metadata.test": [["169.254.169.254"]],
    "router.test": [["192.168.1.1"]],
    "six.test": [["::1"]],
    "mapped.test": [["::ffff:127.0.0.1"]],
    "unique.test": [["fd00::1"]],
    "mixed.test": [[PUBLIC, "127.0.0.1"]],
    "mixed-last.test": [["127.0.0.1", PUBLIC]],
    "mixed-six.test": [[PUBLIC, "::1"]],
    "rebinding.test": [[PUBLIC], ["127.0.0.1"]],
    "turning.test": [[PUBLIC], ["10.0.0.1"]],
    "nothing.test": [[]],
}
"""What look-ups of a name answer, one after the other."""

_PRIVATE_HOSTS = _words("""
    127.0.0.1 127.1 127.0.1 127.255.255.254 2130706433 0x7f000001 0x7f.0.0.1 0X7F.1 0177.0.0.1 017700000001 127.0.0.1.
    localhost localhost. LocalHost sub.localhost inside.test INSIDE.test. metadata.test router.test six.test mapped.test
    unique.test nothing.test unheard-of.test 0.0.0.0 0
    [::1] [::] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [0:0:0:0:0:ffff:7f00:0001] [::127.0.0.1]
    [::ffff:0:127.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b:1::7f00:1] [2002:7f00:1::] [2001:0:0:0:0:0:80ff:fffe]
    [fe80::1] [fe80::1%25lo] [fec0::1] [fc00::1] [fd00:ec2::254] [ff02::1] [2001:db8::1] [3fff::1] [5f00::1]
    169.254.169.254 0xa9fea9fe 10.0.0.1 172.16.0.1 192.168.1.1 100.64.0.1 192.0.0.11 192.0.2.1 198.18.0.1 224.0.0.1
    240.0.0.1 255.255.255.255 0.1.2.3
    127\u30020\u30020\u30021 127\uff0e0\uff0e0\uff0e1 \uff11\uff12\uff17.0.0.1 \u2460\u2461\u2466.\u24ea.\u24ea.\u2460
    \u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3
    127.0.0.%31 %31%32%37.0.0.1 %6cocalhost %256cocalhost inside%2etest %5b::1%5d 169.254.169.25%34
    127.0.0.1%00.good.test 127.0.0.1%09 127.0.0.1%0d%0aX:y 127.0.0.1%20 127.0.0.1%2e
    good.test@127.0.0.1 good.test:80@127.0.0.1 good.test%40127.0.0.1 good.test%2F@127.0.0.1 good.test..127.0.0.1
""")

PRIVATE_URLS = (
    *(f"http://{host}:{{port}}/a.png" for host in [*_PRIVATE_HOSTS, "a" * 300, "\u00e4" * 5_000]),
    *_words(r"""
        http://127.0.0.1:{port}#@good.test/ http://127.0.0.1:{port}?@good.test/ http://127.0.0.1:{port}\@good.test/
        http://good.test\@127.0.0.1:{port}/ http://good.test:{port}\.127.0.0.1/ http:///127.0.0.1:{port}/
        http://\127.0.0.1:{port}/ https://127.0.0.1:{port}/ https://inside.test:{port}/ https://127.0.0.%31:{port}/
        http://127.0.0.1:0x{port:x}/ http://127.0.0.1:00{port}/ http://good.test:99999/ http://good.test:-1/
        http://good.test:a/ http://[::1/ http://[good.test]/ http://[127.0.0.1]:{port}/ http:// https:// http://@/
        http://:{port}/
    """),
    "http://127.0.0.1\t:{port}/",
    "http://127.0.0\n.1:{port}/",
)
"""Where nothing of the public Internet is; `{port}` listens on the loopback."""

OTHER_URLS = (
    *_words(r"""
        file:///etc/passwd FILE:///etc/passwd file://localhost/etc/passwd file://127.0.0.1:{port}/x file:etc/passwd
        ftp://127.0.0.1:{port}/a gopher://127.0.0.1:{port}/_GET dict://127.0.0.1:{port}/d ldap://127.0.0.1:{port}/
        tftp://127.0.0.1:{port}/ jar:http://127.0.0.1:{port}/!/ http+unix://%2frun%2fx/ url:http://127.0.0.1:{port}/
        <http://127.0.0.1:{port}/> blob:http://127.0.0.1:{port}/x view-source:http://127.0.0.1:{port}/
        /etc/passwd ../../etc/passwd etc/passwd C:\Windows\win.ini \\127.0.0.1\share\a.png //127.0.0.1:{port}/a.png
        http:127.0.0.1:{port}/a.png http:/127.0.0.1:{port}/a.png javascript:alert(1) about:blank ~/a.png -
        data:text/html,<script> data:text/html;base64,PGh0bWw+ data:application/octet-stream;base64,AAAA
        data:image/png,AAAA data:image/png;base64 data: data:, data:image/png;charset=x;base64;AAAA
    """),
    "",
    " ",
    " http://127.0.0.1:{port}/a.png",
    "\nhttp://127.0.0.1:{port}/a.png",
    "data:image/" + "a" * 100_000 + ";base64,AAAA",
    "data:image/png" + ";a" * 50_000 + ",AAAA",
)
"""What is no http(s) URL, or no data URI of a picture in base64."""

PROXIED_HOSTS = _words("""
    127.0.0.1 127.0.0.1. 127.1 0x7f000001 127.0.0.%31 localhost localhost. %6cocalhost sub.localhost [::1]
    [::ffff:127.0.0.1] 169.254.169.254 169.254.169.254. 10.0.0.1 0
""")
"""Private by their spelling, which a proxy must not be asked for."""

REDIRECTS = (
    *_words(r"""
        http://127.0.0.1:{port}/a.png http://localhost:{port}/a.png //127.0.0.1:{port}/a.png
        http://2130706433:{port}/a.png http://0x7f.1:{port}/a.png http://[::1]:{port}/a.png
        http://[::ffff:127.0.0.1]:{port}/a.png http://127.0.0.%31:{port}/a.png http://%6cocalhost:{port}/a.png
        http://inside%2etest:{port}/a.png http://inside.test:{port}/a.png http://good.test@127.0.0.1:{port}/a.png
        http://127.0.0.1:{port}\@good.test/a.png http://127.0.0.1:{port}#@good.test/a.png https://127.0.0.1:{port}/a.png
        http://169.254.169.254/latest/meta-data/ http://metadata.test/latest/meta-data/ http://mixed.test:{port}/a.png
        http://turning.test/to/0 HTTP://127.0.0.1:{port}/a.png http:127.0.0.1:{port}/a.png
        http:///127.0.0.1:{port}/a.png file:///etc/passwd ftp://127.0.0.1:{port}/a gopher://127.0.0.1:{port}/_
        data:image/png;base64,AAAA javascript:1 http://good.test/to/0
    """),
    "",
    " http://127.0.0.1:{port}/a.png",
)
"""Where a site of the public Internet sends on whoever asks it."""


# Sites that misbehave: each answers one connection.


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"


def endless(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(_HEAD + b"\r\n")
    while not stop.is_set():
        connection.sendall(bytes(65_536))


def announced(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(_HEAD + b"Content-Length: 3000000000\r\n\r\n")
    while not stop.is_set():
        connection.sendall(bytes(65_536))


def endless_chunks(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while not stop.is_set():
        connection.sendall(b"8000\r\n" + bytes(0x8000) + b"\r\n")


def too_short(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(_HEAD + b"Content-Length: 100000\r\n\r\n" + PICTURE)


def no_number(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(_HEAD + b"Content-Length: -5\r\n\r\nabc")


def silent(connection: socket.socket, stop: threading.Event) -> None:
    stop.wait(5)


def drip_by_byte(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(_HEAD + b"Content-Length: 100000\r\n\r\n")
    while not stop.wait(0.02):
        connection.sendall(b"x")


def drip_head(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while not stop.wait(0.02):
        connection.sendall(b"x")


def endless_interim(connection: socket.socket, stop: threading.Event) -> None:
    while not stop.wait(0.001):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def endless_headers(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while not stop.is_set():
        connection.sendall(b"X: y\r\n" * 100)


def junk(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(b"\x16\x03\x01\x02" + bytes(100))


SITES = (endless, announced, endless_chunks, too_short, no_number, silent, drip_by_byte, drip_head)
MORE_SITES = (endless_interim, endless_headers, junk)


_SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_POST = b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\n"
MESSAGES: Mapping[str, bytes] = {
    "length and chunks": _POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "chunks and length": _POST + b"Transfer-Encoding: chunked\r\nContent-Length: 100\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "two lengths": _POST + b"Content-Length: 2\r\nContent-Length: 0\r\n\r\n{}" + _SMUGGLED,
    "a list of lengths": _POST + b"Content-Length: 2, 0\r\n\r\n{}" + _SMUGGLED,
    "a signed length": _POST + b"Content-Length: +2\r\n\r\n{}" + _SMUGGLED,
    "a length below 0": _POST + b"Content-Length: -1\r\n\r\n{}" + _SMUGGLED,
    "a hex length": _POST + b"Content-Length: 0x2\r\n\r\n{}" + _SMUGGLED,
    "a length of 5,000 digits": _POST + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n{}",
    "chunks twice": _POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "another coding": _POST + b"Transfer-Encoding: xchunked\r\nContent-Length: 2\r\n\r\n{}" + _SMUGGLED,
    "chunks in a list": _POST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "a space in front of the colon": _POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "a folded coding": _POST + b"Transfer-Encoding:\r\n xchunked\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "a signed chunk": _POST + b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n" + _SMUGGLED,
    "a hex chunk": _POST + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n" + _SMUGGLED,
    "a chunk too long": _POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n{}" + _SMUGGLED,
    "chunks without an end": _POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}0\r\n\r\n" + _SMUGGLED,
    "two hosts": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.test\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "a header without a colon": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nabc\r\n\r\n",
    "a header without a name": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n: x\r\n\r\n",
    "NUL in a header": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nx: a\0b\r\n\r\n",
    "folded first": b"GET /health HTTP/1.1\r\n Host: 127.0.0.1\r\n\r\n",
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "HTTP/0.9 without an end": b"GET /health\r\n",
    "HTTP/9.9": b"GET /health HTTP/9.9\r\nHost: evil.test\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    "TLS": bytes.fromhex("16030100c6010000c20303") + bytes(range(1, 200)),
    "SSH": b"SSH-2.0-OpenSSH_9.0\r\n",
    "RTSP": b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    "noise": bytes(range(256)) * 4,
    "a space in the path": b"GET /health x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "UTF-8 in the path": "GET /hälth HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(),
    "a method of no letters": b"G@T /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a redis command": b"*1\r\n$8\r\nFLUSHALL\r\n",
    "a tunnel": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\nSSH-2.0-x\r\n",
}
"""What two readers may read in two ways, or none as HTTP."""
